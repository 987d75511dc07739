/** Colours of weight types: the file's largest get one each, the others share the last. */

const distinct = 5;

/**
 * @param {{ type: string, byteLength: number }[]} tensors
 * @returns {{ type: string, count: number, bytes: number, className: string }[]} largest first
 */
export function byType(tensors) {
  /** @type {Map<string, { type: string, count: number, bytes: number }>} */
  const sums = new Map();
  for (const { type, byteLength } of tensors) {
    const sum = sums.get(type) ?? { type, count: 0, bytes: 0 };
    sum.count++;
    sum.bytes += byteLength;
    sums.set(type, sum);
  }
  return [...sums.values()]
    .sort((a, b) => b.bytes - a.bytes)
    .map((sum, i) => ({ ...sum, className: i < distinct ? `type-${i + 1}` : 'type-rest' }));
}
