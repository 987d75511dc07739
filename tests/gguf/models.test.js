/**
 * Real trained tensors, compared with float64: the embedded model, and the files in models/ of the
 * test data. Every weight type and shape of each file goes through openGguf, loadWeight, dequantize
 * and fusedMatmul.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { createKernels, openGguf } from '../../js/index.js';
import { ACTIVATION_NAMES, normError, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { dataPath, listData, projectRoot, skipWithout } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { GgufFile, Kernels } from '../../js/index.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const EMBEDDED = join(projectRoot, 'web/public/tiny-tales-Q4_K_M.gguf');
/** Norm-wise promises by the mode that serves. The rounding of f32 is bounded per output. */
const PROMISED = [1e-5, 1e-4, 2e-2];
/** @param {string} path @param {(gguf: GgufFile) => Promise<void>} body */
async function withFile(path, body) {
  const gguf = await openGguf(path);
  try {
    await body(gguf);
  } finally {
    await gguf.close();
  }
}

/** One matrix of each type and shape. @param {GgufFile} gguf */
function distinctMatrices(gguf) {
  const found = new Map();
  for (const tensor of gguf.tensors.values()) {
    if (tensor.nRows > 1) found.set(`${tensor.type} ${tensor.shape.join('x')}`, tensor);
  }
  return [...found.values()];
}

/**
 * Activations like those of the model: rows of its embedding, normalised as in RMSNorm, and noise
 * if the rows are too short.
 * @param {Float32Array} embedding @param {number} length
 */
function realActivations(embedding, length) {
  const prng = new Prng(length);
  const x = Float32Array.from(
    { length },
    (_, i) => embedding[i % embedding.length] * (1 + 0.01 * prng.gaussian()),
  );
  const rms = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / length);
  return x.map((value) => value / rms);
}

/** @param {Kernels} fm @param {GgufFile} gguf @param {import('node:test').TestContext} t */
async function checkFile(fm, gguf, t) {
  const served = new Set(fm.types.map(({ name }) => name));
  const embeddingTensor = gguf.tensor('token_embd.weight');
  const embeddingType = /** @type {ReferenceType} */ (referenceByName.get(embeddingTensor.type));
  const embedding = new ReferenceWeight(
    embeddingType,
    await gguf.read(embeddingTensor.name),
    embeddingTensor.nRows,
    embeddingTensor.nCols,
  ).exactF32.subarray(100 * embeddingTensor.nCols);
  let checked = 0;
  const unserved = new Set();
  for (const { name, type: typeName, nRows, nCols, byteLength } of distinctMatrices(gguf)) {
    if (!served.has(typeName)) {
      unserved.add(typeName);
      continue;
    }
    const type = /** @type {ReferenceType} */ (referenceByName.get(typeName));
    const w = await fm.loadWeight(gguf, name);
    const bytes = await gguf.read(name);
    assert.equal(bytes.length, byteLength);
    const reference = new ReferenceWeight(type, bytes, nRows, nCols);
    const values = fm.dequantize(w);
    assert.ok(
      Buffer.from(values.buffer).equals(Buffer.from(reference.exactF32.buffer)),
      `${name}: dequantize`,
    );
    const x = realActivations(embedding, 4 * nCols);
    const product = new ReferenceProduct(reference, x, 4);
    for (const activation of ACTIVATION_NAMES) {
      const mode = ACTIVATION_NAMES.indexOf(fm.servedBy(typeName, activation).activation);
      for (const nTokens of [1, 4]) {
        const y = fm.fusedMatmul(w, x.subarray(0, nTokens * nCols), { activation });
        const what = `${name} (${typeName}), ${activation}, ${nTokens} tokens`;
        product.check(y, { nTokens, activation: mode, what });
        const error = normError(y, product.y.subarray(0, y.length));
        assert.ok(error <= PROMISED[mode], `${what}: norm-wise error ${error}, promised ${PROMISED[mode]}`);
      }
    }
    w.free();
    checked++;
  }
  if (unserved.size > 0) t.diagnostic(`types not served yet: ${[...unserved].join(', ')}`);
  assert.ok(checked > 0 || unserved.size > 0, 'no matrix in the file');
}

/** @type {{ path: string, skip: string | false }[]} */
const files = [
  { path: EMBEDDED, skip: existsSync(EMBEDDED) ? false : 'the embedded model is missing from web/public' },
  ...listData('models')
    .filter((name) => name.endsWith('.gguf'))
    .map((name) => ({ path: dataPath('models', name), skip: /** @type {false} */ (false) })),
];
test('models: the test data', { skip: skipWithout('models') }, () => assert.ok(files.length > 1));

for (const { path, skip } of files) {
  test(`models: ${basename(path)}`, { skip }, async (t) => {
    for (const { isa, dot, label, skip: variantSkip } of libraryVariants) {
      await t.test(label, { skip: variantSkip }, async (variantTest) => {
        const fm = await createKernels({ isa, dot });
        try {
          await withFile(path, (gguf) => checkFile(fm, gguf, variantTest));
          assert.equal(fm.memory().handles, 0);
        } finally {
          fm.dispose();
        }
      });
    }
  });
}

/* The same trained weights in three files. A wrong offset or row length would show here even if
 * the kernels and the reference agreed about the bytes. Tolerances: a code is off by at most
 * half a step, uniformly. This is 1 / sqrt(12) steps of 1/127 (Q8_0) or 1/8 (Q4_0) of the
 * largest value in a block, which is about 2.5 standard deviations for 32 values. */
for (const [quantised, tolerance] of /** @type {const} */ ([
  ['Q8_0', 0.01],
  ['Q4_0', 0.15],
])) {
  test(`models: stories260K, ${quantised} against f32`, {
    skip: skipWithout('models', `stories260K-${quantised}.gguf`),
  }, async () => {
    await withFile(dataPath('models', 'stories260K-f32.gguf'), async (exact) => {
      await withFile(dataPath('models', `stories260K-${quantised}.gguf`), async (rounded) => {
        let compared = 0;
        for (const { name, type } of rounded.tensors.values()) {
          const values = new Float32Array((await exact.read(name)).slice().buffer);
          const reference = referenceByName.get(type);
          assert.ok(reference, type);
          const { nRows, nCols } = rounded.tensor(name);
          const weight = new ReferenceWeight(reference, await rounded.read(name), nRows, nCols);
          const error = normError(weight.values, values);
          assert.ok(error <= tolerance, `${name} (${type}): ${error}`);
          compared++;
        }
        assert.equal(compared, exact.tensors.size);
      });
    });
  });
}
