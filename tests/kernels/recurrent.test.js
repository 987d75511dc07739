/**
 * The operations of recurrent layers on raw modules. Each is compared with float64 in every
 * instruction set, and all sets must give the same bits. The bounds are derived beside the tests.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { everywhere, gaussian, input, TINY, u, within } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';

const { abs } = Math;
const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`recurrent: ${name} module`, { skip: reason }, () => {});

const PLAIN = -1;

/**
 * A convolution in float64.
 * @param {object} given
 * @param {Float32Array} given.x
 * @param {Float32Array} given.weight
 * @param {Float32Array} given.state
 * @param {Float32Array} [given.bias]
 * @param {number} nChannels
 */
function reference({ x, weight, state, bias }, nChannels) {
  const length = weight.length / nChannels;
  const rows = Float32Array.from([...state, ...x]);
  const terms = (/** @type {number} */ i) =>
    Array.from({ length }, (_, j) => weight[(i % nChannels) * length + j] * rows[i + j * nChannels]);
  const own = (/** @type {number} */ i) => bias?.[i % nChannels] ?? 0;
  return {
    value: (/** @type {number} */ i) => terms(i).reduce((sum, term) => sum + term, own(i)),
    mass: (/** @type {number} */ i) => terms(i).reduce((sum, term) => sum + abs(term), abs(own(i))),
    state: rows.subarray(rows.length - state.length),
  };
}

for (const module of modules) {
  const { exports } = module;
  const prng = new Prng(43);

  test(`recurrent: ${module.name} module, products of values`, () => {
    for (const n of [1, 3, 4, 7, 9, 64, 300, 2500]) {
      const [a, b] = [gaussian(n, prng, 4), gaussian(n, prng)];
      a.set(Float32Array.of(0, -0, Number.NaN, 1 / 0, -1 / 0, 1e-45, 3e38).subarray(0, n));
      const call = (/** @type {number[]} */ [atA, atB], /** @type {number} */ atY) =>
        exports.fm_multiply(atA, atB, atY, n);
      everywhere(module, [a, b], n, call, [0, 1]).forEach((value, i) => {
        assert.ok(Object.is(value, Math.fround(a[i] * b[i])), `${a[i]} * ${b[i]} = ${value}`);
      });
    }
  });

  test(`recurrent: ${module.name} module, convolutions`, () => {
    for (const [nTokens, nChannels, length, hasBias] of /** @type {[number, number, number, boolean][]} */ ([
      [1, 1, 2, false],
      [1, 16, 3, false],
      [2, 7, 4, true],
      [3, 35, 3, true],
      [9, 64, 4, true],
      [5, 17, 16, false],
      [40, 50, 2, true],
      [33, 20, 16, true],
    ])) {
      const what = `${nTokens} x ${nChannels}, length ${length}`;
      const x = gaussian(nTokens * nChannels, prng);
      const weight = gaussian(nChannels * length, prng);
      const state = gaussian((length - 1) * nChannels, prng);
      const bias = hasBias ? gaussian(nChannels, prng) : undefined;
      const expected = reference({ x, weight, state, bias }, nChannels);
      const inputs = [x, weight, ...(bias ? [bias] : [])];
      const convolve = (/** @type {number} */ act) => {
        const atState = module.alloc(4 * state.length);
        const view = () => new Float32Array(exports.memory.buffer, atState, state.length);
        const y = everywhere(
          module,
          inputs,
          x.length,
          ([atX, atW, atB = 0], atY) => {
            view().set(state);
            const status = exports.fm_causal_conv(
              ...[atX, atW, atB, atState, atY],
              ...[nTokens, nChannels, length, act],
            );
            assert.deepEqual(view(), expected.state, `${what}: the state is the last inputs`);
            return status;
          },
          [0],
        );
        module.free(atState);
        return y;
      };
      const plain = convolve(PLAIN);
      // Each of the products and sums rounds once, and the magnitudes of all are at most the mass.
      within(plain, expected.value, (i) => (2 * length + 0.01) * u * expected.mass(i) + length * TINY, what);
      // The activation function of a value is the one of fm_gated.
      const ones = new Float32Array(x.length).fill(1);
      for (const act of [0, 1, 2]) {
        const { y } = module.guarded([plain, ones].map(input), x.length, ([atA, atB], atY) =>
          exports.fm_gated(atA, atB, atY, x.length, act),
        );
        assert.deepEqual(convolve(act), y, `${what}, activation ${act}`);
      }
    }
  });

  test(`recurrent: ${module.name} module, a convolution in two steps`, () => {
    const [nChannels, length, nTokens] = [21, 4, 7];
    const [x, weight] = [gaussian(nTokens * nChannels, prng), gaussian(nChannels * length, prng)];
    const run = (/** @type {number[]} */ steps) => {
      const bytes = [x, weight, new Float32Array((length - 1) * nChannels)].map((values) => {
        const at = module.alloc(4 * values.length);
        new Float32Array(exports.memory.buffer, at, values.length).set(values);
        return at;
      });
      const [atX, atW, atS] = bytes;
      let at = atX;
      for (const n of steps) {
        const status = exports.fm_causal_conv(at, atW, 0, atS, at, n, nChannels, length, 0);
        assert.equal(status, STATUS.OK);
        at += 4 * n * nChannels;
      }
      const y = new Float32Array(exports.memory.buffer, atX, x.length).slice();
      for (const pointer of bytes) module.free(pointer);
      return y;
    };
    for (const variant of module.variants) {
      module.select(variant);
      const whole = run([nTokens]);
      for (const steps of [
        [6, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [2, 5],
      ])
        assert.deepEqual(run(steps), whole, `${variant.label}: ${steps}`);
    }
  });
}
