/* The structs of src/fused.h, one row each. They are laid out as in C: each field at a multiple of
 * its own size. */

import { kindsOf } from './abi.js';

/** Fields, spelled like the parameters in abi.js. */
export const STRUCTS = /** @type {const} */ ({
  fm_target: 'i32 type, u32 n_rows, address w, address y',
  fm_ffn_weights: 'i32 gate_type, i32 up_type, i32 down_type, address gate, address up, address down',
  fm_routing:
    'u32 n_tokens, u32 n_experts, u32 n_used, u32 n_groups, u32 n_groups_used, i32 scores, i32 normalize, f32 scale',
  fm_expert_target: 'i32 type, u32 n_rows, address w, address bias, address y',
  fm_attention:
    'u32 n_tokens, u32 n_heads, u32 n_kv_heads, u32 head_size, u32 n_positions, u32 first_position, i32 kv_type, i32 causal, u32 window, f32 scale, f32 softcap, address sinks',
  fm_delta: 'u32 n_tokens, u32 n_key_heads, u32 n_value_heads, u32 key_size, u32 value_size, f32 eps',
  fm_scan: 'u32 n_tokens, u32 n_heads, u32 n_groups, u32 head_size, u32 state_size',
});

/** @typedef {import('./memory.js').Memory} Memory */
/** @typedef {keyof typeof STRUCTS} StructName */
/** @typedef {{ bytes: number, fields: { kind: import('./abi.js').Kind, at: number }[] }} Layout */

/** @param {string} list  fields of a row @param {number} addressBytes @returns {Layout} */
export function layOut(list, addressBytes) {
  let end = 0;
  let alignment = 1;
  const fields = kindsOf(list).map((kind) => {
    const bytes = kind === 'address' ? addressBytes : 4;
    const at = Math.ceil(end / bytes) * bytes;
    end = at + bytes;
    alignment = Math.max(alignment, bytes);
    return { kind, at };
  });
  return { bytes: Math.ceil(end / alignment) * alignment, fields };
}

const layouts = (/** @type {number} */ addressBytes) =>
  /** @type {Record<StructName, Layout>} */ (
    Object.fromEntries(Object.entries(STRUCTS).map(([name, list]) => [name, layOut(list, addressBytes)]))
  );
const LAYOUTS_32 = layouts(4);
const LAYOUTS_64 = layouts(8);

/** @param {Memory} memory @param {StructName} name */
const layoutIn = (memory, name) => (memory.is64 ? LAYOUTS_64 : LAYOUTS_32)[name];

/** Size of a struct in this memory, in bytes. @param {Memory} memory @param {StructName} name */
export const structBytes = (memory, name) => layoutIn(memory, name).bytes;

/**
 * @param {Memory} memory
 * @param {StructName} name
 * @param {number} ptr  address of the struct
 * @param {readonly number[]} values  values of its fields
 */
export function writeStruct(memory, name, ptr, values) {
  const { bytes, fields } = layoutIn(memory, name);
  const view = new DataView(memory.u8.buffer, ptr, bytes);
  for (const [i, { kind, at }] of fields.entries()) {
    const value = values[i];
    if (kind === 'f32') view.setFloat32(at, value, true);
    else if (kind === 'address' && memory.is64) view.setBigUint64(at, BigInt(value), true);
    else view.setUint32(at, value, true);
  }
}
