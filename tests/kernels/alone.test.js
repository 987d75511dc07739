/**
 * Products of several tokens with FM_ALONE: each has the bits that it has as the only token. Every weight
 * type, module, instruction set and mode, also where a row does not fit into one panel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { activations } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES } from '../helpers/bounds.js';
import { SEED, sampled, samplerOf } from '../helpers/drawn.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';

/** @import { ReferenceType } from '../helpers/reference.js' */

const ALONE = 8;
/** Tokens: fewer and more than a kernel takes at a time. */
const COUNTS = [2, 3, 4, 5, 8, 15, 16, 17, 21];
/** Types of which a row has more columns than a panel of many tokens. */
const WIDE = ['Q4_K', 'Q8_0', 'F16'];
/** Blocks of 256 columns that the activations of a panel have together (src/ops/activations.c). */
const PANEL_BLOCKS = 1024;

/**
 * Rows of results of each token by itself, and of all together.
 * @param {import('../helpers/raw.js').RawModule} module
 * @param {import('../helpers/raw.js').ModuleType} type
 * @param {{ nTokens: number, nRows: number, nCols: number, activation: number, prng: Prng }} shape
 */
function both(module, type, { nTokens, nRows, nCols, activation, prng }) {
  const reference = /** @type {ReferenceType} */ (referenceById.get(type.id));
  const w = makeWeights(reference, 'natural', nRows, nCols, prng);
  const x = activations.gaussian(nTokens, nCols, prng);
  const alone = Array.from({ length: nTokens }, (_, t) => {
    const { status, y } = module.matmul(
      type,
      w,
      x.slice(t * nCols, (t + 1) * nCols),
      1,
      nRows,
      nCols,
      activation,
    );
    assert.equal(status, STATUS.OK);
    return [...y];
  }).flat();
  const { status, y } = module.matmul(type, w, x, nTokens, nRows, nCols, activation + ALONE);
  assert.equal(status, STATUS.OK);
  return { alone: new Float32Array(alone), together: y };
}

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`alone: ${name} module`, { skip: reason }, () => {});

for (const module of modules) {
  for (const variant of module.variants) {
    test(`alone: ${variant.label}, seed ${SEED}`, (t) => {
      module.select(variant);
      const prng = new Prng(SEED);
      let nCases = 0;
      for (const type of module.types) {
        const { name, blockValues } = /** @type {ReferenceType} */ (referenceById.get(type.id));
        const whole = (/** @type {number} */ n) => Math.ceil(n / blockValues) * blockValues;
        for (const [activation, mode] of ACTIVATION_NAMES.entries()) {
          const shapes = samplerOf(SEED + type.id)(COUNTS, 2).map((nTokens) => [nTokens, whole(544), 9]);
          // A panel has the columns of 5 tokens, so that 7 take two of them.
          // Kernels for many tokens are called twice.
          if (['Q4_K', 'Q6_K'].includes(name)) shapes.push([17, whole(544), 9]);
          if (WIDE.includes(name)) shapes.push([7, whole(256 * Math.floor(PANEL_BLOCKS / 5)), 1]);
          for (const [nTokens, nCols, nRows] of shapes) {
            const { alone, together } = both(module, type, { nTokens, nRows, nCols, activation, prng });
            assert.deepEqual(together, alone, `${name} ${mode}, ${nTokens} tokens of ${nCols} columns`);
            nCases += 1;
          }
        }
      }
      t.diagnostic(`ran: ${variant.label}: ${nCases} products of tokens alone`);
    });
  }
}

test('alone: rows with more columns than a panel', (t) => {
  for (const module of modules) {
    const type = module.types.find(({ id }) => referenceById.get(id)?.name === 'Q4_0');
    assert.ok(type);
    for (const variant of module.variants) {
      module.select(variant);
      for (const activation of sampled([0, 1, 2], 1)) {
        const nCols = 256 * PANEL_BLOCKS + 544;
        const shape = { nTokens: 2, nRows: 1, nCols, activation, prng: new Prng(7) };
        const { alone, together } = both(module, type, shape);
        assert.deepEqual(together, alone, `${variant.label} ${activation}`);
      }
    }
  }
  t.diagnostic(`ran: ${modules.length} modules`);
});
