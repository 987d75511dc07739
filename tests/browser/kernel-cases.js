/** What a page is given to multiply (fixtures/kernels.js), and what must come of it. */
import assert from 'node:assert/strict';
import { activations } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { referenceTypes } from '../helpers/reference.js';

const shapes = [
  { nRows: 7, nCols: 512, nTokens: 1 },
  { nRows: 9, nCols: 1280, nTokens: 6 },
];

export const VARIANTS = [
  { isa: 'scalar' },
  { isa: 'simd128' },
  { isa: 'relaxed', dot: 'i16' },
  { isa: 'relaxed', dot: 'i32' },
];

const base64 = (/** @type {ArrayBufferView} */ view) =>
  Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('base64');
const floats = (/** @type {string} */ text) =>
  new Float32Array(Uint8Array.from(Buffer.from(text, 'base64')).buffer);

/**
 * Every activation mode with every type that is served.
 * @param {string[]} served
 */
export function makeCases(served) {
  const prng = new Prng(20240607);
  const types = referenceTypes.filter(({ name }) => served.includes(name));
  assert.ok(types.some(({ name }) => name === 'Q4_K'));
  return types.flatMap((type) =>
    shapes.flatMap(({ nRows, nCols, nTokens }) => {
      const weights = makeWeights(type, 'natural', nRows, nCols, prng);
      const x = activations.gaussian(nTokens, nCols, prng);
      const product = new ReferenceProduct(new ReferenceWeight(type, weights, nRows, nCols), x, nTokens);
      return ACTIVATION_NAMES.map((activation) => ({
        product,
        sent: { type: type.name, nRows, nCols, weights: base64(weights), x: base64(x), activation },
      }));
    }),
  );
}

/**
 * @param {any} answer  of the page's runKernels()
 * @param {{ isa: string, dot?: string }} variant
 * @param {ReturnType<typeof makeCases>} cases
 */
export function checkAnswer(answer, { isa, dot }, cases) {
  assert.equal(answer.isa, isa);
  if (dot) assert.equal(answer.dot, dot);
  assert.deepEqual(answer.left, { weights: 0, tensors: 0, handles: 0 });
  assert.equal(answer.results.length, cases.length);
  for (const [i, { product, sent }] of cases.entries()) {
    const { served, first, last } = answer.results[i];
    const what = `${isa} ${dot ?? ''} ${sent.type} ${sent.nRows}x${sent.nCols} ${sent.activation}`;
    product.check(floats(first), { activation: ACTIVATION_NAMES.indexOf(served.activation), what });
    assert.equal(last, first, `${what}: the optimised code gives other bits than the first call`);
  }
}
