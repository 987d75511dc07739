/** Calls of the fused products on raw memory, and their float64 references. */
import assert from 'node:assert/strict';
import { ReferenceProduct } from './bounds.js';

/** @import { ReferenceWeight } from './bounds.js' */
/** @import { ModuleType, RawModule } from './raw.js' */

const u = 2 ** -24;
const GUARD = 0xff;
const GUARD_BYTES = 64;
const F32_MAX = (2 - 2 ** -23) * 2 ** 127;

export const GATES = /** @type {const} */ (['silu', 'gelu', 'relu', 'clamped']);

/**
 * A part of a call's memory: given bytes, which may depend on the addresses of all parts, or room
 * for an output.
 * @typedef {{ bytes: ArrayBufferView | ((at: number[]) => Uint8Array), size?: number,
 *   alignment?: number }} Input
 * @typedef {{ outputBytes: number }} Output
 */

/** @param {ArrayBufferView} view */
const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/**
 * Lays out the parts, each behind a guard and at no better alignment than it needs, makes the call,
 * and checks that nothing but the outputs has changed.
 * @param {RawModule} module @param {(Input | Output)[]} parts
 * @param {(at: number[]) => number} call @returns {{ status: number, outputs: Float32Array[] }}
 */
export function inMemory(module, parts, call) {
  /** @type {number[]} */
  const offsets = [];
  let end = GUARD_BYTES;
  const sizes = parts.map((part) => {
    if ('outputBytes' in part) return part.outputBytes;
    return typeof part.bytes === 'function' ? /** @type {number} */ (part.size) : part.bytes.byteLength;
  });
  parts.forEach((part, i) => {
    const start = Math.ceil(end / 64) * 64 + ('alignment' in part ? Number(part.alignment) : 4);
    offsets.push(start);
    end = start + sizes[i] + GUARD_BYTES;
  });
  const base = module.alloc(end);
  const at = offsets.map((offset) => base + offset);
  const before = new Uint8Array(end).fill(GUARD);
  parts.forEach((part, i) => {
    if ('outputBytes' in part) return;
    before.set(typeof part.bytes === 'function' ? part.bytes(at) : bytesOf(part.bytes), offsets[i]);
  });
  try {
    module.u8.set(before, base);
    const status = call(at);
    const after = module.u8.slice(base, base + end);
    /** @type {Float32Array[]} */
    const outputs = [];
    parts.forEach((part, i) => {
      if (!('outputBytes' in part)) return;
      outputs.push(new Float32Array(after.slice(offsets[i], offsets[i] + sizes[i]).buffer));
      after.fill(GUARD, offsets[i], offsets[i] + sizes[i]);
    });
    assert.equal(Buffer.compare(before, after), 0, 'a byte outside the outputs changed');
    return { status, outputs };
  } finally {
    module.free(base);
  }
}

/** @typedef {{ type: ModuleType, bytes: Uint8Array, nRows: number }} Target */

/**
 * Calls fused_matmul_many, or with a norm fused_rmsnorm_matmul (weight null: ones).
 * @param {RawModule} module @param {Target[]} targets @param {Float32Array} x
 * @param {number} nTokens @param {number} nCols @param {number} activation
 * @param {{ weight: Float32Array | null, eps: number }} [norm]
 */
export function multiplyMany(module, targets, x, nTokens, nCols, activation, norm) {
  const n = targets.length;
  /** @type {(Input | Output)[]} */
  const parts = targets.flatMap(({ type, bytes, nRows }) => [
    { bytes, alignment: type.alignment },
    { outputBytes: 4 * nTokens * nRows },
  ]);
  const list = (/** @type {number[]} */ at) =>
    new Uint8Array(
      Int32Array.from(targets.flatMap(({ type, nRows }, i) => [type.id, nRows, at[2 * i], at[2 * i + 1]]))
        .buffer,
    );
  parts.push({ bytes: list, size: 16 * n }, { bytes: x }, { bytes: norm?.weight ?? new Float32Array(1) });
  return inMemory(module, parts, (at) => {
    const [list, x, weight] = at.slice(2 * n);
    if (!norm) return module.exports.fused_matmul_many(list, n, x, nTokens, nCols, activation);
    const weightAt = norm.weight ? weight : 0;
    return module.exports.fused_rmsnorm_matmul(list, n, x, weightAt, norm.eps, nTokens, nCols, activation);
  });
}

/**
 * @param {RawModule} module @param {Target} target @param {Float32Array} gate
 * @param {Float32Array | null} up  null: ones @param {number} nTokens @param {number} nCols @param {number} act
 * @param {number} activation
 */
export function multiplyGated(module, { type, bytes, nRows }, gate, up, nTokens, nCols, act, activation) {
  return inMemory(
    module,
    [
      { bytes, alignment: type.alignment },
      { bytes: gate },
      { bytes: up ?? new Float32Array(1) },
      { outputBytes: 4 * nTokens * nRows },
    ],
    ([w, gateAt, upAt, y]) => {
      const optional = up ? upAt : 0;
      return module.exports.fused_swiglu_matmul(
        ...[type.id, w, gateAt, optional, y, nTokens, nRows, nCols, act, activation],
      );
    },
  );
}

/**
 * Calls fm_rms_norm on f32 rows.
 * @param {RawModule} module @param {Float32Array} x @param {number} nTokens @param {number} nCols
 * @param {{ weight: Float32Array | null, eps: number }} norm
 */
export function normRows(module, x, nTokens, nCols, { weight, eps }) {
  const parts = [{ bytes: x }, { bytes: weight ?? new Float32Array(1) }, { outputBytes: x.byteLength }];
  const { status, outputs } = inMemory(module, parts, ([xAt, weightAt, y]) =>
    module.exports.fm_rms_norm(xAt, weight ? weightAt : 0, y, nTokens, nCols, eps),
  );
  assert.equal(status, 0);
  return outputs[0];
}

/**
 * @param {RawModule} module @param {Float32Array} gate @param {Float32Array} up @param {number} act
 */
export function gateValues(module, gate, up, act) {
  const parts = [{ bytes: gate }, { bytes: up }, { outputBytes: gate.byteLength }];
  const { status, outputs } = inMemory(module, parts, ([gateAt, upAt, y]) =>
    module.exports.fm_gated(gateAt, upAt, y, gate.length, act),
  );
  assert.equal(status, 0);
  return outputs[0];
}

/**
 * Activations in float64, and the largest error of the f32 values that a kernel makes of them.
 * @typedef {{ values: Float64Array, errors: Float64Array }} Made
 */

/**
 * x / sqrt(mean(x^2) + eps) * weight. Errors: the sum is in f64. Its factor, the product with x and
 * the product with the weight are rounded to f32 once each, the last two perhaps below the normal
 * numbers. The factor is at most the largest f32.
 * @param {Float32Array} x @param {number} nTokens @param {number} nCols
 * @param {{ weight: Float32Array | null, eps: number }} norm @returns {Made}
 */
export function normReference(x, nTokens, nCols, { weight, eps }) {
  const made = { values: new Float64Array(x.length), errors: new Float64Array(x.length) };
  for (let t = 0; t < nTokens; t++) {
    const row = x.subarray(t * nCols, (t + 1) * nCols);
    const squares = row.reduce((sum, value) => sum + value * value, 0);
    const factor = Math.min(1 / Math.sqrt(squares / nCols + Math.fround(eps)), F32_MAX);
    row.forEach((value, c) => {
      const w = weight ? weight[c] : 1;
      made.values[t * nCols + c] = value * factor * w;
      made.errors[t * nCols + c] = 4 * u * Math.abs(value * factor * w) + 2 ** -149 * (1 + Math.abs(w));
    });
  }
  return made;
}

/**
 * act(gate) * up; of the clamped gate min(max(up, -7), 7) + 1 for up, rounded once more. Errors: those that kernels/exp.h states for the activation (4 ulp, for GELU 3 |z|
 * u more; -0 instead of anything above -2.7e-37), and one rounding. ReLU is exact.
 * @param {Float32Array} gate @param {Float32Array} up @param {number} act @returns {Made}
 */
export function gateReference(gate, up, act) {
  const made = { values: new Float64Array(gate.length), errors: new Float64Array(gate.length) };
  for (let i = 0; i < gate.length; i++) {
    const g = gate[i];
    if (act === 2) {
      made.values[i] = Math.max(g, 0) * up[i];
      made.errors[i] = u * Math.abs(made.values[i]) + 2 ** -149;
      continue;
    }
    if (act === 3) {
      const x = Math.min(g, 7);
      const z = Math.fround(1.702) * x;
      const factor = Math.min(Math.max(up[i], -7), 7) + 1;
      made.values[i] = (x / (1 + Math.exp(-z))) * factor;
      const relative = (10 + 3 * Math.min(Math.abs(z), 104)) * u;
      made.errors[i] = relative * Math.abs(made.values[i]) + 2.8e-37 * Math.abs(factor) + 2 ** -149;
      continue;
    }
    const z = act === 0 ? g : 2 * Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3);
    const value = (g / (1 + Math.exp(-z))) * up[i];
    const relative = (9 + (act === 0 ? 0 : 3 * Math.min(Math.abs(z), 104))) * u;
    made.values[i] = value;
    made.errors[i] = relative * Math.abs(value) + 2.8e-37 * Math.abs(up[i]) + 2 ** -149;
  }
  return made;
}

/**
 * The product of made activations. The errors of their f32 values pass through the weights, as
 * sum_c error_c |w_c|. They also change the activations, by less than 2^-15, and so the bound of
 * the product.
 */
export class MadeProduct {
  /** The error of the activations, passed on by the weights, by output. @type {Float64Array | undefined} */
  #passed;

  /** @param {ReferenceWeight} w @param {Made} made @param {number} nTokens */
  constructor(w, made, nTokens) {
    this.product = new ReferenceProduct(w, /** @type {any} */ (made.values), nTokens);
    this.w = w;
    this.nTokens = nTokens;
    this.made = made;
  }

  /** @param {number} t @param {number} r @param {number} activation */
  bound(t, r, activation) {
    this.#passed ??= this.#findPassed();
    return this.product.bound(t, r, activation) * (1 + 2 ** -15) + 2 * this.#passed[t * this.w.nRows + r];
  }

  #findPassed() {
    const { nRows, nCols, values } = this.w;
    const { errors } = this.made;
    const passed = new Float64Array(this.nTokens * nRows);
    for (let i = 0; i < passed.length; i++) {
      const [x, w] = [Math.floor(i / nRows) * nCols, (i % nRows) * nCols];
      for (let c = 0; c < nCols; c++) passed[i] += errors[x + c] * Math.abs(values[w + c]);
    }
    return passed;
  }

  /**
   * @param {Float32Array} got @param {number} activation  fm_activation the kernel gets
   * @param {string} what
   */
  check(got, activation, what) {
    const { nRows } = this.w;
    assert.equal(got.length, this.nTokens * nRows, what);
    for (let i = 0; i < got.length; i++) {
      const [t, r] = [Math.floor(i / nRows), i % nRows];
      const expected = this.product.y[i];
      const bound = this.bound(t, r, activation);
      if (!(Math.abs(got[i] - expected) <= bound))
        assert.fail(`${what}: y[${t}][${r}] is ${got[i]}, float64 gives ${expected}, bound ${bound}`);
    }
  }
}

/**
 * Checks that both have the same bits.
 * @param {Float32Array} got @param {Float32Array} expected @param {string} what
 */
export function assertBits(got, expected, what) {
  assert.equal(got.length, expected.length, what);
  if (Buffer.compare(bytesOf(got), bytesOf(expected)) === 0) return;
  const i = got.findIndex((value, k) => !Object.is(value, expected[k]));
  assert.fail(`${what}: output ${i} is ${got[i]}, not ${expected[i]}`);
}
