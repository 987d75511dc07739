/** What a module imports and exports, read from its bytes: also of modules that this engine does not take. */

const KINDS = /** @type {Record<number, string>} */ ({
  127: 'i32',
  126: 'i64',
  125: 'f32',
  124: 'f64',
  123: 'v128',
});

/**
 * @typedef {object} ModuleInterface
 * @property {string[]} imports  as module.name
 * @property {Record<string, string | undefined>} exports  by name; of functions their signature: result(parameters)
 * @property {string[]} customs  names of custom sections
 */

/**
 * Format: WebAssembly core specification, binary format, modules.
 * @param {Uint8Array} bytes
 * @returns {ModuleInterface}
 */
export function interfaceOf(bytes) {
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
  /** Indices into types. @type {number[]} */
  const functions = [];
  /** @type {ModuleInterface} */
  const found = { imports: [], exports: {}, customs: [] };
  const importOne = () => {
    found.imports.push(`${text()}.${text()}`);
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
    found.exports[name] = what === 0 ? types[functions[index]] : undefined;
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
    if (section === 0) found.customs.push(text());
    if (section === 1) types = list(typeOne);
    if (section === 2) list(importOne);
    if (section === 3) functions.push(...list(leb));
    if (section === 7) list(exportOne);
    at = next;
  }
  return found;
}
