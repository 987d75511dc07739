/* Texts as a tree of UTF-16 units. The nodes are in breadth-first order: the children of a node are
 * neighbours, sorted by their unit. Node 0 is the root. */

export class Trie {
  /** For each node its unit. @type {number[]} */
  units = [0];
  /**
   * For each node its first child. They end where those of the next node begin.
   * @type {number[]}
   */
  children = [];
  /** For each node the index of the text that ends in it, or -1. @type {number[]} */
  text = [-1];

  /** @param {readonly string[]} texts  different texts; an empty one ends in the root */
  constructor(texts) {
    // Texts with the same beginning are neighbours when sorted, so each node is a range of them.
    const sorted = [...texts.keys()].sort((a, b) => (texts[a] < texts[b] ? -1 : 1));
    const low = [0];
    const high = [sorted.length];
    const depth = [0];
    for (let node = 0; node < this.units.length; node++) {
      this.children.push(this.units.length);
      const place = depth[node];
      let i = low[node];
      // The shortest text of a range comes first.
      if (i < high[node] && texts[sorted[i]].length === place) {
        this.text[node] = sorted[i];
        i += 1;
      }
      while (i < high[node]) {
        const unit = texts[sorted[i]].charCodeAt(place);
        low.push(i);
        while (i < high[node] && texts[sorted[i]].charCodeAt(place) === unit) i += 1;
        high.push(i);
        depth.push(place + 1);
        this.units.push(unit);
        this.text.push(-1);
      }
    }
    this.children.push(this.units.length);
  }

  /**
   * The child of a node for a unit; 0 if there is none.
   * @param {number} node
   * @param {number} unit
   */
  child(node, unit) {
    const end = this.children[node + 1];
    let low = this.children[node];
    let high = end;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.units[middle] < unit) low = middle + 1;
      else high = middle;
    }
    return low < end && this.units[low] === unit ? low : 0;
  }
}
