/**
 * The operations of a layer on raw modules: comparison with float64, and every instruction set in
 * turn.
 */
import assert from 'node:assert/strict';
import { floatsOf } from './activations.js';
import { STATUS } from './raw.js';

/** @import { RawModule } from './raw.js' */
/** @import { Prng } from './prng.js' */

/** The unit roundoff of f32. */
export const u = 2 ** -24;
/** Half the smallest subnormal: the largest error of a rounding below the normal numbers. */
export const TINY = 2 ** -150;
export const LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 31, 64, 127, 300];

/** @param {ArrayBufferView} view */
export const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
/** @param {ArrayBufferView} view */
export const input = (view) => ({ bytes: bytesOf(view), alignment: 4 });
/** @param {number} length @param {Prng} prng @param {number} [scale] */
export const gaussian = (length, prng, scale = 1) => floatsOf(length, () => scale * prng.gaussian());

/**
 * Checks that every output is within its bound of the reference, with NaN and infinities exactly
 * where the reference has them.
 * @param {Float32Array} got @param {(i: number) => number} reference
 * @param {(i: number, value: number) => number} bound @param {string} what
 */
export function within(got, reference, bound, what) {
  got.forEach((value, i) => {
    const expected = reference(i);
    if (Object.is(value, Math.fround(expected))) return;
    const error = Math.abs(value - expected);
    assert.ok(
      error <= bound(i, Math.abs(expected)),
      `${what}: [${i}] is ${value}, expected ${expected}: off by ${error}, allowed ${bound(i, Math.abs(expected))}`,
    );
  });
}

/**
 * Runs in every instruction set and checks that the bits are the same, NaN for NaN. If the first
 * input may also be the output, that is tried too.
 * @param {RawModule} module @param {Float32Array[]} inputs @param {number} nOut
 * @param {(pointers: number[], y: number) => number} call
 * @param {number[]} [inPlace]  inputs that y may be @returns {Float32Array}
 */
export function everywhere(module, inputs, nOut, call, inPlace = []) {
  /** @type {Float32Array | undefined} */
  let first;
  const same = (/** @type {Float32Array} */ y, /** @type {string} */ label) => {
    first ??= y;
    for (let i = 0; i < nOut; i++)
      assert.ok(Object.is(y[i], first[i]), `${label}: [${i}] is ${y[i]}, not ${first[i]}`);
  };
  for (const variant of module.variants) {
    module.select(variant);
    const { status, y } = module.guarded(inputs.map(input), nOut, call);
    assert.equal(status, STATUS.OK, variant.label);
    same(y, variant.label);
    for (const at of inPlace) {
      const rest = inputs.filter((_, i) => i !== at);
      const base = module.alloc(4 * nOut);
      new Float32Array(module.exports.memory.buffer, base, nOut).set(inputs[at]);
      const { status: again } = module.guarded(rest.map(input), 0, (pointers) =>
        call(pointers.toSpliced(at, 0, base), base),
      );
      assert.equal(again, STATUS.OK, variant.label);
      same(new Float32Array(module.exports.memory.buffer, base, nOut).slice(), `${variant.label}, in place`);
      module.free(base);
    }
  }
  return /** @type {Float32Array} */ (first);
}
