/* The exports of a module with 64-bit addresses, as functions of plain numbers. Fetched only when there is one, or is to be. */

/** By export: which parameters are addresses (or size_t). */
const ADDRESSES = {
  fused_matmul: [1, 2, 3],
  fm_dequantize_rows: [1, 2],
  fm_quantize_rows: [1, 2],
  fused_dequant_matmul_q4k_legacy: [0, 1, 2, 3],
  fused_matmul_many: [0, 2],
  fused_rmsnorm_matmul: [0, 2, 3],
  fused_swiglu_matmul: [1, 2, 3, 4],
  fused_ffn: [0, 1, 2, 4, 5],
  fused_attention_score: [0, 1, 2],
  fm_flash_attention: [0, 1, 2, 3, 4],
  fm_kv_write: [1, 2],
  fm_rms_norm: [0, 1, 2],
  fm_layer_norm: [0, 1, 2, 3],
  fm_softmax: [0, 1],
  fm_rope: [0, 8],
  fm_embed: [1, 2, 3],
  fm_add: [0, 1, 2],
  fm_add_scaled: [0, 1, 2],
  fm_scale: [0, 1],
  fm_gated: [0, 1, 2],
  fm_alloc: [0],
  fm_free: [0],
};
/** Those that return one. */
const RETURNS_ADDRESS = ['fm_alloc', 'fm_thread_stack'];

/**
 * @param {Record<string, any>} exports
 * @returns {Record<string, any>}
 */
export function withNumbers(exports) {
  const wrapped = { ...exports };
  for (const [name, addresses] of Object.entries(ADDRESSES)) {
    wrapped[name] = (/** @type {(number | bigint)[]} */ ...args) => {
      for (const i of addresses) args[i] = BigInt(args[i]);
      return exports[name](...args);
    };
  }
  for (const name of RETURNS_ADDRESS) {
    const call = wrapped[name];
    wrapped[name] = (/** @type {number[]} */ ...args) => Number(call(...args));
  }
  return wrapped;
}

/**
 * Why this engine cannot have such a module.
 * @param {import('./loader.js').Features} features
 * @returns {string | undefined}
 */
export function lacking64({ memory64, relaxedSimd }) {
  if (!memory64) return 'this engine has no 64-bit memories';
  return relaxedSimd ? undefined : 'the 64-bit module needs relaxed SIMD, which this engine lacks';
}

/**
 * Whether addresses have 64 bits, as they were to have, and why not.
 * @param {boolean} is64
 * @param {string | undefined} failure  of the module that would have them
 * @param {boolean} isOne  one module was given, for everything
 */
export function explain64(is64, failure, isOne) {
  if (is64) return 'asked for';
  return `32 bits: ${failure ?? (isOne ? 'the given module has 32 bits' : 'wasm has no relaxed-mt-64')}`;
}
