/* Access to Node's modules, hidden from bundlers for browsers: the module is imported by a name
 * that no bundler resolves. */

/**
 * @type {{ versions?: { node?: string }, type?: string, getBuiltinModule?: (id: string) => any }
 *   | undefined}
 */
const nodeProcess = /** @type {any} */ (globalThis).process;

/** True in Node and compatible runtimes; false in browsers, their workers and Electron's pages. */
export const isNode = typeof nodeProcess?.versions?.node === 'string' && nodeProcess.type !== 'renderer';

/**
 * @param {string} name  without the scheme, e.g. 'fs/promises'
 * @returns {Promise<any>}
 */
export async function nodeModule(name) {
  const id = `node:${name}`;
  return nodeProcess?.getBuiltinModule?.(id) ?? import(/* webpackIgnore: true */ /* @vite-ignore */ id);
}

/** A clock. Date replaces it where it is missing, as in a bare context of Node's vm. */
export const { performance = Date } = globalThis;
