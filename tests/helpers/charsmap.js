/**
 * Makes a charsmap as GGUF files have it (tokenizer.ggml.precompiled_charsmap): a double array in
 * which every node has a block of 256 units for its children.
 */

const utf8 = new TextEncoder();

/**
 * @param {[from: string, to: string][]} pairs
 * @returns {number[]} signed bytes
 */
export function charsmap(pairs) {
  /** @typedef {{ children: Map<number, Node>, place?: number }} Node */
  /** @type {Node} */
  const root = { children: new Map() };
  /** @type {number[]} */
  const texts = [];
  for (const [from, to] of pairs) {
    let node = root;
    for (const byte of utf8.encode(from)) {
      const child = node.children.get(byte) ?? { children: new Map() };
      node.children.set(byte, child);
      node = child;
    }
    node.place = texts.length;
    texts.push(...utf8.encode(to), 0);
  }
  /** @type {number[]} */
  const units = [];
  let blocks = 0;
  /** @param {Node} node @param {number} at @param {number} label */
  const write = (node, at, label) => {
    blocks += 1;
    const block = 256 * blocks;
    const distance = at ^ block;
    const shifted = distance % 256 === 0 ? ((distance >> 8) << 10) | 0x200 : distance << 10;
    units[at] = shifted | (node.place === undefined ? 0 : 0x100) | label;
    if (node.place !== undefined) units[block] = (0x80000000 | node.place) >>> 0;
    for (const [byte, child] of node.children) write(child, block ^ byte, byte);
  };
  write(root, 0, 0);
  const view = new DataView(new ArrayBuffer(4 + 1024 * (blocks + 1)));
  view.setUint32(0, view.byteLength - 4, true);
  for (let i = 0; i < 256 * (blocks + 1); i++) view.setUint32(4 + 4 * i, units[i] ?? 0, true);
  return [...new Int8Array(view.buffer), ...Int8Array.from(texts)];
}
