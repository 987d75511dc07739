/* Merges neighbouring symbols, best pair first: the loop that SentencePiece and byte-pair encoding
 * share. They differ in how pairs are ranked. The candidates are in a heap, so a text of n
 * characters takes O(n log n) steps. */

/**
 * @callback Rank  Cost of text[start, end), merged from a pair that meets at `middle`; undefined if
 *   the pair cannot be merged.
 * @param {string} text
 * @param {number} start
 * @param {number} middle
 * @param {number} end
 * @returns {number | undefined} the lowest cost is merged first; of equal costs the leftmost
 */

/**
 * @param {string} text
 * @param {Rank} rank
 * @returns {number[]} the ends of the remaining symbols, in UTF-16 units
 */
export function mergeSymbols(text, rank) {
  /**
   * Symbol i is text[starts[i], starts[next[i]]), unless it was merged into the one before it.
   * @type {number[]}
   */
  const starts = [];
  for (let at = 0; at < text.length; at += charLength(text, at)) starts.push(at);
  const n = starts.length;
  starts.push(text.length);
  const next = Int32Array.from(starts, (_, i) => i + 1);
  const previous = Int32Array.from(starts, (_, i) => i - 1);
  const gone = new Uint8Array(n + 1);
  const heap = new Heap();
  const offer = (/** @type {number} */ left) => {
    if (left < 0 || next[left] >= n) return;
    const right = next[left];
    const end = starts[next[right]];
    const cost = rank(text, starts[left], starts[right], end);
    if (cost !== undefined) heap.push({ cost, left, right, end });
  };
  for (let i = 0; i + 1 < n; i++) offer(i);
  for (let best = heap.pop(); best; best = heap.pop()) {
    const { left, right, end } = best;
    // Stale: one of the two was merged already.
    if (gone[left] || gone[right] || next[left] !== right || starts[next[right]] !== end) continue;
    gone[right] = 1;
    next[left] = next[right];
    previous[next[right]] = left;
    offer(previous[left]);
    offer(left);
  }
  const ends = [];
  for (let i = 0; i < n; i = next[i]) ends.push(starts[next[i]]);
  return ends;
}

/**
 * Number of UTF-16 units of the character at `at`.
 * @param {string} text
 * @param {number} at
 */
function charLength(text, at) {
  const unit = text.charCodeAt(at);
  return unit >= 0xd800 && unit < 0xdc00 && at + 1 < text.length ? 2 : 1;
}

/** @typedef {{ cost: number, left: number, right: number, end: number }} Candidate */

/** @param {Candidate} a @param {Candidate} b */
const before = (a, b) => a.cost < b.cost || (a.cost === b.cost && a.left < b.left);

/** A binary heap with the best candidate first. */
class Heap {
  /** @type {Candidate[]} */
  #items = [];

  /** @param {Candidate} item */
  push(item) {
    const items = this.#items;
    let i = items.length;
    items.push(item);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(item, items[parent])) break;
      items[i] = items[parent];
      i = parent;
    }
    items[i] = item;
  }

  /** @returns {Candidate | undefined} */
  pop() {
    const items = this.#items;
    const [best] = items;
    const last = items.pop();
    if (items.length === 0 || last === undefined) return best;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1], items[child])) child += 1;
      if (!before(items[child], last)) break;
      items[i] = items[child];
      i = child;
    }
    items[i] = last;
    return best;
  }
}
