/* The exports of the modules, one row each, as src/fused.h declares them: result(parameters), where
 * a parameter is its kind and its name. The check of a module, the wrappers for addresses and the
 * types of calls are derived from these rows, so a new operation is one row here. A test compares
 * the rows with the header and with every module.
 *
 * Kinds: address and size have the width of the memory's addresses; i32, u32 and f32 have 32
 * bits. */

export const ABI = /** @type {const} */ ({
  fused_matmul:
    'i32(i32 type, address w, address x, address y, u32 n_tokens, u32 n_rows, u32 n_cols, i32 activation)',
  fm_dequantize_rows: 'i32(i32 type, address w, address y, u32 n_rows, u32 n_cols)',
  fm_quantize_rows: 'i32(i32 type, address x, address w, u32 n_rows, u32 n_cols)',
  fused_dequant_matmul_q4k_legacy:
    'i32(address w, address scales, address x, address y, u32 n_tokens, u32 n_rows, u32 n_cols)',
  fm_type_block_values: 'u32(i32 type)',
  fm_type_block_bytes: 'u32(i32 type)',
  fm_type_alignment: 'u32(i32 type)',
  fm_alloc: 'address(size bytes)',
  fm_free: 'void(address p)',
  fm_version: 'u32()',
  fm_isa: 'i32()',
  fm_select: 'i32(i32 isa, i32 dot)',
  fused_matmul_many:
    'i32(address targets, u32 n_targets, address x, u32 n_tokens, u32 n_cols, i32 activation)',
  fused_rmsnorm_matmul:
    'i32(address targets, u32 n_targets, address x, address norm_weight, f32 eps, u32 n_tokens, u32 n_cols, i32 activation)',
  fused_swiglu_matmul:
    'i32(i32 type, address w, address gate, address up, address y, u32 n_tokens, u32 n_rows, u32 n_cols, i32 act, i32 activation)',
  fused_ffn:
    'i32(address weights, address x, address norm_weight, f32 eps, address y, address workspace, u32 n_tokens, u32 n_embd, u32 n_ff, i32 act, i32 residual, i32 activation)',
  fm_route:
    'i32(address routing, address logits, address bias, address rows, address ends, address weights, address workspace)',
  fm_matmul_experts:
    'i32(address targets, u32 n_targets, address rows, address ends, u32 n_pairs, u32 n_experts, address x, address up, u32 n_tokens, u32 n_cols, i32 act, i32 activation)',
  fm_mix_rows:
    'i32(address x, address rows, address weights, address y, u32 n_pairs, u32 n_tokens, u32 n_cols)',
  fused_attention_score:
    'i32(address q, address k, address scores, u32 n_q, u32 n_k, u32 head_size, f32 scale, i32 causal)',
  fm_flash_attention: 'i32(address shape, address q, address k, address v, address out)',
  fm_delta_net:
    'i32(address shape, address qkv, address alpha, address beta, address dt_bias, address a, address gate, address norm_weight, address state, address out)',
  fm_kv_write:
    'i32(i32 kv_type, address cache, address x, u32 n_tokens, u32 n_cols, u32 position, u32 n_positions)',
  fm_rms_norm: 'i32(address x, address weight, address y, u32 n_rows, u32 n_cols, f32 eps)',
  fm_layer_norm: 'i32(address x, address weight, address bias, address y, u32 n_rows, u32 n_cols, f32 eps)',
  fm_softmax: 'i32(address x, address y, u32 n_rows, u32 n_cols)',
  fm_rope:
    'i32(address x, u32 n_tokens, u32 n_heads, u32 head_size, u32 n_dims, u32 first_position, f32 base, f32 linear_scale, address factors, f32 magnitude, i32 pairing)',
  fm_embed: 'i32(i32 type, address table, address ids, address y, u32 n_tokens, u32 n_rows, u32 n_cols)',
  fm_add: 'i32(address a, address b, address y, u32 n)',
  fm_add_row: 'i32(address x, address row, address y, u32 n_rows, u32 n_cols)',
  fm_add_scaled: 'i32(address a, address b, address y, u32 n, f32 scale)',
  fm_scale: 'i32(address x, address y, u32 n, f32 scale)',
  fm_gated: 'i32(address gate, address up, address y, u32 n, i32 act)',
  fm_multiply: 'i32(address a, address b, address y, u32 n)',
  fm_causal_conv:
    'i32(address x, address weight, address bias, address state, address y, u32 n_tokens, u32 n_channels, u32 length, i32 act)',
  fm_ssm_scan:
    'i32(address shape, address x, address dt, address a, address d, address dt_bias, address state, address y)',
  fm_served_by: 'i32(i32 type, i32 activation)',
});

/** Exports that only modules with threads have. */
export const THREAD_ABI = /** @type {const} */ ({
  fm_thread_stack: 'address(u32 thread)',
  fm_thread_run: 'void(u32 thread)',
  fm_thread_failed: 'void()',
  fm_threads_use: 'i32(u32 n_threads, u32 fork_work, i32 may_sleep)',
  fm_threads_stop: 'void()',
});

/** @typedef {'address' | 'size' | 'i32' | 'u32' | 'f32'} Kind */

/**
 * The type of a call's arguments: a number for each parameter in the list.
 * @template {string} S
 * @typedef {S extends '' ? [] : S extends `${string}, ${infer Rest}` ? [number, ...Arguments<Rest>]
 *   : [number]} Arguments
 */

/**
 * The function of a row, with numbers for addresses.
 * @template {string} S
 * @typedef {S extends `${infer R}(${infer P})`
 *   ? (...args: Arguments<P>) => R extends 'void' ? void : number : never} Call
 */

/** @typedef {{ [K in keyof typeof ABI]: Call<(typeof ABI)[K]> }} Calls */
/** @typedef {{ [K in keyof typeof THREAD_ABI]: Call<(typeof THREAD_ABI)[K]> }} ThreadCalls */

/**
 * The kinds in a list of parameters or fields.
 * @param {string} list
 * @returns {Kind[]}
 */
export function kindsOf(list) {
  const parts = list === '' ? [] : list.split(', ');
  return parts.map((part) => /** @type {Kind} */ (part.slice(0, part.indexOf(' '))));
}

/** Tells whether a kind has the width of addresses. @param {string} kind */
const isWide = (kind) => kind === 'address' || kind === 'size';

/**
 * Wraps the exports of a module as functions of plain numbers, with addresses from 0 on. Engines
 * return 32-bit addresses as signed numbers, and take 64-bit addresses as BigInts.
 * @param {Record<string, any>} exports
 * @param {boolean} is64
 * @returns {Record<string, any>}
 */
export function withNumbers(exports, is64) {
  const wrapped = { ...exports };
  for (const [name, row] of Object.entries({ ...ABI, ...THREAD_ABI })) {
    const call = exports[name];
    const [, result, list] = /** @type {RegExpExecArray} */ (/^(\w+)\((.*)\)$/.exec(row));
    const wide = kindsOf(list).flatMap((kind, i) => (isWide(kind) ? [i] : []));
    if (!call || !(isWide(result) || (is64 && wide.length > 0))) continue;
    /** @param {(number | bigint)[]} args */
    const run = (...args) => {
      if (is64) for (const i of wide) args[i] = BigInt(args[i]);
      return call(...args);
    };
    if (!isWide(result)) wrapped[name] = run;
    else
      wrapped[name] = is64
        ? (/** @type {number[]} */ ...args) => Number(run(...args))
        : (/** @type {number[]} */ ...args) => run(...args) >>> 0;
  }
  return wrapped;
}
