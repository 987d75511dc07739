/* Gets a wasm module from its source, and instantiates it. */

import { ArgumentError, LoadError, show } from '../errors.js';
import { isNode, nodeModule } from '../node.js';
import { ABI, withNumbers } from './abi.js';

/** @typedef {import('./memory.js').WasmExports} WasmExports */
/** @typedef {WebAssembly.Module | BufferSource | URL | string} WasmSource */

/**
 * @typedef {{ module: WebAssembly.Module, url: string | undefined, bytes: number | undefined }}
 *   Compiled
 */

/** Words of browsers for a Content-Security-Policy that forbids compiling. */
const FORBIDDEN = /content security policy|blocked by csp/i;
const FIX = "the Content-Security-Policy needs 'wasm-unsafe-eval' in script-src";

/** Tells whether every other module would fail too. @param {unknown} error */
export const isForbidden = (error) => error instanceof LoadError && error.message.endsWith(FIX);

/** Modules by URL, so that a page compiles each once. @type {Map<string, Compiled>} */
const compiled = new Map();

/**
 * @param {WasmSource} source
 * @returns {Promise<Compiled>}
 * @throws {LoadError}
 */
export async function compile(source) {
  // Tested by tag instead of instanceof, as the source may come from another realm.
  const kind = Object.prototype.toString.call(source).slice(8, -1);
  const given = /** @type {any} */ (source);
  if (kind === 'WebAssembly.Module') return { module: given, url: undefined, bytes: undefined };
  if (kind === 'ArrayBuffer' || ArrayBuffer.isView(source)) {
    const module = await tryTo('compile the given bytes', undefined, () => WebAssembly.compile(given));
    return { module, url: undefined, bytes: given.byteLength };
  }
  if (kind !== 'URL' && kind !== 'String') {
    throw new ArgumentError(`wasm must be a WebAssembly.Module, bytes or a URL, got ${show(source)}`);
  }
  const url = String(source);
  let result = compiled.get(url);
  if (!result) {
    result = await compileUrl(url);
    compiled.set(url, result);
  }
  return result;
}

/**
 * @param {string} url
 * @returns {Promise<Compiled>}
 */
async function compileUrl(url) {
  if (isNode && !/^(https?|data|blob):/i.test(url)) {
    const bytes = await tryTo('read', url, async () => {
      const fs = await nodeModule('fs/promises');
      return /** @type {Uint8Array<ArrayBuffer>} */ (
        await fs.readFile(url.startsWith('file:') ? new URL(url) : url)
      );
    });
    const module = await tryTo('compile', url, () => WebAssembly.compile(bytes));
    return { module, url, bytes: bytes.byteLength };
  }
  const response = await tryTo('fetch', url, () => fetch(url));
  if (!response.ok) throw new LoadError(`cannot fetch ${url}: HTTP ${response.status}`, { url });
  const { headers } = response;
  // Some servers send another type for .wasm, which compileStreaming refuses.
  if (
    typeof WebAssembly.compileStreaming === 'function' &&
    headers.get('content-type')?.startsWith('application/wasm')
  ) {
    const length = headers.get('content-encoding') ? null : headers.get('content-length');
    const module = await tryTo('compile', url, () => WebAssembly.compileStreaming(response));
    return { module, url, bytes: length ? Number(length) : undefined };
  }
  const bytes = await tryTo('fetch', url, () => response.arrayBuffer());
  if (!isWasm(bytes)) {
    throw new LoadError(`${url} is no WebAssembly but ${headers.get('content-type')}`, { url });
  }
  const module = await tryTo('compile', url, () => WebAssembly.compile(bytes));
  return { module, url, bytes: bytes.byteLength };
}

/** Tells whether the bytes begin like a wasm module. @param {ArrayBuffer} bytes */
const isWasm = (bytes) => bytes.byteLength >= 4 && new DataView(bytes).getUint32(0) === 0x0061736d;

/** Most bytes of a memory with 32-bit addresses. */
const ADDRESS_SPACE = 2 ** 32;

/**
 * A module instance with its memory.
 * @typedef {object} Instance
 * @property {WasmExports} exports  Functions that take plain numbers as addresses, and the memory.
 * @property {WebAssembly.Memory} memory
 * @property {number} limit  Most bytes that the memory can have.
 * @property {boolean} isShared  Whether the module has threads.
 * @property {boolean} is64  Whether addresses have 64 bits.
 */

/**
 * Tells whether a module has threads: its memory is shared and therefore imported.
 * @param {WebAssembly.Module} module
 */
export function hasThreads(module) {
  return WebAssembly.Module.imports(module).some(({ kind }) => kind === 'memory');
}

/**
 * @param {WebAssembly.Module} module
 * @param {string | undefined} url
 * @returns {Promise<Instance>}
 * @throws {LoadError} the module cannot be instantiated, or is no fused-matmul module
 */
export async function instantiate(module, url) {
  if (!hasThreads(module)) {
    const { exports } = await tryTo('instantiate', url, () => WebAssembly.instantiate(module, {}));
    const memory = /** @type {WebAssembly.Memory} */ (exports.memory);
    return finish({ exports, memory, limit: ADDRESS_SPACE, isShared: false, is64: false }, url);
  }
  const { sharedMemory } = await import('./pool.js');
  for (const is64 of [false, true]) {
    const { memory, limit } = await tryTo('make a shared memory for', url, async () => sharedMemory(is64));
    try {
      const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
      return finish({ exports, memory, limit, isShared: true, is64 }, url);
    } catch (error) {
      // The module wants a memory of the other kind. A module cannot be asked for the width of its
      // addresses.
      if (!is64 && error instanceof WebAssembly.LinkError) continue;
      await tryTo('instantiate', url, () => Promise.reject(error));
    }
  }
  throw new LoadError('unreachable');
}

/**
 * @param {Omit<Instance, 'exports'> & { exports: WebAssembly.Exports }} instance
 * @param {string | undefined} url
 * @returns {Instance}
 */
function finish({ exports, memory, ...rest }, url) {
  const missing = Object.keys(ABI).filter((name) => typeof exports[name] !== 'function');
  if (!(memory instanceof WebAssembly.Memory) || missing.length > 0) {
    throw new LoadError(
      `${url ?? 'the given module'} is no fused-matmul module: it lacks ${missing[0] ?? 'memory'}`,
      { url },
    );
  }
  const raw = /** @type {any} */ (exports);
  (raw._initialize ?? raw.__wasm_call_ctors)?.();
  const named = withNumbers(raw, rest.is64);
  return { exports: /** @type {WasmExports} */ ({ ...named, memory }), memory, ...rest };
}

/**
 * @template T
 * @param {string} verb
 * @param {string | undefined} url
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
async function tryTo(verb, url, action) {
  try {
    return await action();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const shown = FORBIDDEN.test(why) ? FIX : why;
    throw new LoadError(`cannot ${verb}${url ? ` ${url}` : ''}: ${shown}`, { url, cause });
  }
}
