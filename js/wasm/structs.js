/* Structs of C in a linear memory. Their fields are letters: w for 32 bits, a for an address. */

/** @typedef {import('./memory.js').Memory} Memory */

/**
 * The bytes a struct takes.
 * @param {Memory} memory
 * @param {string} fields
 */
export function structBytes(memory, fields) {
  let end = 0;
  for (const field of fields) end = startOf(memory, field, end) + bytesOf(memory, field);
  const alignment = fields.includes('a') ? memory.addressBytes : 4;
  return Math.ceil(end / alignment) * alignment;
}

/**
 * @param {Memory} memory
 * @param {number} ptr
 * @param {string} fields
 * @param {number[]} values
 */
export function writeStruct(memory, ptr, fields, values) {
  const view = new DataView(memory.u8.buffer, ptr, structBytes(memory, fields));
  let end = 0;
  for (const [i, field] of [...fields].entries()) {
    const at = startOf(memory, field, end);
    end = at + bytesOf(memory, field);
    view.setUint32(at, values[i] % 2 ** 32, true);
    if (end - at === 8) view.setUint32(at + 4, Math.floor(values[i] / 2 ** 32), true);
  }
}

/** @param {Memory} memory @param {string} field @param {number} end  of the field before it */
function startOf(memory, field, end) {
  const bytes = bytesOf(memory, field);
  return Math.ceil(end / bytes) * bytes;
}

/** @param {Memory} memory @param {string} field */
const bytesOf = (memory, field) => (field === 'a' ? memory.addressBytes : 4);
