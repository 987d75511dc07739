/** The signatures of a module's exported functions, read from its bytes: also of modules that this engine does not take. */

const KINDS = /** @type {Record<number, string>} */ ({
  127: 'i32',
  126: 'i64',
  125: 'f32',
  124: 'f64',
  123: 'v128',
});

/**
 * Format: WebAssembly core specification, binary format, modules.
 * @param {Uint8Array} bytes
 * @returns {Record<string, string>}  by name: result(parameters), as kinds of WebAssembly
 */
export function exportedSignatures(bytes) {
  let at = 8;
  const leb = () => {
    let [value, shift, byte] = [0, 0, 128];
    for (; byte & 128; shift += 7) {
      byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
    }
    return value;
  };
  const text = () => {
    const length = leb();
    at += length;
    return new TextDecoder().decode(bytes.subarray(at - length, at));
  };
  /** @template T @param {() => T} read @returns {T[]} */
  const list = (read) => Array.from({ length: leb() }, read);
  const kind = () => KINDS[bytes[at++]];
  const limits = () => {
    const flags = bytes[at++];
    leb();
    if (flags & 1) leb();
  };
  /** @type {string[]} */
  let types = [];
  /** @type {number[]} */
  const functions = [];
  /** @type {Record<string, string>} */
  const found = {};
  const importOne = () => {
    text();
    text();
    const what = bytes[at++];
    if (what === 0) functions.push(leb());
    else if (what === 1) {
      at += 1;
      limits();
    } else if (what === 2) limits();
    else at += 2;
  };
  const exportOne = () => {
    const name = text();
    const what = bytes[at++];
    const index = leb();
    if (what === 0) found[name] = types[functions[index]];
  };
  const typeOne = () => {
    at += 1;
    const parameters = list(kind);
    const [result = 'void'] = list(kind);
    return `${result}(${parameters.join(', ')})`;
  };
  while (at < bytes.length) {
    const section = bytes[at++];
    const length = leb();
    const next = at + length;
    if (section === 1) types = list(typeOne);
    if (section === 2) list(importOne);
    if (section === 3) functions.push(...list(leb));
    if (section === 7) list(exportOne);
    at = next;
  }
  return found;
}
