/* Gets a wasm module from wherever it is and instantiates it. */

import { ArgumentError, LoadError, show } from './errors.js';
import { isNode, nodeModule } from './node.js';

/** @typedef {import('./memory.js').WasmExports} WasmExports */
/** @typedef {WebAssembly.Module | BufferSource | URL | string} WasmSource */

/** @typedef {{ module: WebAssembly.Module, url: string | undefined, bytes: number | undefined }} Compiled */

/** Modules by address: a page compiles each once. @type {Map<string, Compiled>} */
const compiled = new Map();

/** The functions a module must export. */
const REQUIRED = /** @type {const} */ ([
  'fused_matmul',
  'fm_dequantize_rows',
  'fm_quantize_rows',
  'fused_dequant_matmul_q4k_legacy',
  'fused_matmul_many',
  'fused_rmsnorm_matmul',
  'fused_swiglu_matmul',
  'fused_ffn',
  'fused_attention_score',
  'fm_flash_attention',
  'fm_kv_write',
  'fm_rms_norm',
  'fm_layer_norm',
  'fm_softmax',
  'fm_rope',
  'fm_embed',
  'fm_add',
  'fm_gated',
  'fm_type_block_values',
  'fm_type_block_bytes',
  'fm_type_alignment',
  'fm_alloc',
  'fm_free',
  'fm_version',
  'fm_isa',
  'fm_select',
  'fm_served_by',
]);

/**
 * @param {WasmSource} source
 * @returns {Promise<Compiled>}
 * @throws {LoadError}
 */
export async function compile(source) {
  if (source instanceof WebAssembly.Module) return { module: source, url: undefined, bytes: undefined };
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) {
    const module = await tryTo('compile the given bytes', undefined, () => WebAssembly.compile(source));
    return { module, url: undefined, bytes: source.byteLength };
  }
  if (!(source instanceof URL) && typeof source !== 'string') {
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
  // Servers that know no .wasm send another type, with which compileStreaming refuses.
  if (
    typeof WebAssembly.compileStreaming === 'function' &&
    headers.get('content-type')?.startsWith('application/wasm')
  ) {
    const length = headers.get('content-encoding') ? null : headers.get('content-length');
    const module = await tryTo('compile', url, () => WebAssembly.compileStreaming(response));
    return { module, url, bytes: length ? Number(length) : undefined };
  }
  const bytes = await tryTo('fetch', url, () => response.arrayBuffer());
  const module = await tryTo('compile', url, () => WebAssembly.compile(bytes));
  return { module, url, bytes: bytes.byteLength };
}

/**
 * @param {WebAssembly.Module} module
 * @param {string | undefined} url
 * @returns {Promise<WasmExports>}
 * @throws {LoadError} also when it is not one of ours
 */
export async function instantiate(module, url) {
  const imports = { env: { emscripten_notify_memory_growth: () => {} } };
  const instance = await tryTo('instantiate', url, () => WebAssembly.instantiate(module, imports));
  const exports = /** @type {WasmExports} */ (/** @type {unknown} */ (instance.exports));
  const missing = REQUIRED.filter((name) => typeof exports[name] !== 'function');
  if (!(exports.memory instanceof WebAssembly.Memory) || missing.length > 0) {
    throw new LoadError(
      `${url ?? 'the given module'} is no fused-matmul module: it lacks ${missing[0] ?? 'memory'}`,
      { url },
    );
  }
  exports._initialize?.();
  return exports;
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
    throw new LoadError(`cannot ${verb}${url ? ` ${url}` : ''}: ${why}`, { url, cause });
  }
}
