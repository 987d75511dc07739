/* A look at the numbers of a tensor where they are. */

/**
 * The index of the first value whose magnitude is over a limit; NaN counts as over any.
 * @param {import('./handles.js').Tensor} tensor
 * @param {number} largest
 * @returns {number}  -1 where there is none
 */
export function firstBeyond({ heap, ptr, length }, largest) {
  let i = ptr / 4;
  const end = i + length;
  // Four at a time: this runs for every token.
  for (; i + 4 <= end; i += 4) {
    const fits =
      Math.abs(heap[i]) <= largest &&
      Math.abs(heap[i + 1]) <= largest &&
      Math.abs(heap[i + 2]) <= largest &&
      Math.abs(heap[i + 3]) <= largest;
    if (!fits) break;
  }
  for (; i < end; i++) if (!(Math.abs(heap[i]) <= largest)) return i - ptr / 4;
  return -1;
}
