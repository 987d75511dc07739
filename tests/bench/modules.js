/**
 * The modules of the benchmark (build/wasm/bench-*.wasm): baseline kernels and limits. They are not
 * part of the package.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../helpers/test-data.js';

/** @type {Map<string, any>} */
const opened = new Map();

/**
 * @param {'baseline' | 'limits'} name
 * @returns {any} its exports; undefined if it is not built, or this engine lacks its instructions
 */
export function benchModule(name) {
  if (opened.has(name)) return opened.get(name);
  const path = join(projectRoot, `build/wasm/bench-${name}.wasm`);
  const bytes = existsSync(path) ? readFileSync(path) : undefined;
  let exports;
  if (bytes && WebAssembly.validate(bytes)) {
    const imports = { env: { emscripten_notify_memory_growth() {} } };
    exports = /** @type {any} */ (new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports);
    exports._initialize?.();
  }
  opened.set(name, exports);
  return exports;
}

/** One arena of the baseline module for all cases, since the module cannot free memory. */
const arena = { start: 0, bytes: 0 };

/**
 * Addresses for pieces of these lengths, 64-byte aligned, in one arena. The next call uses the same
 * memory again.
 * @param {number[]} lengths  bytes @returns {number[]}
 */
export function places(lengths) {
  const padded = lengths.map((bytes) => Math.ceil(bytes / 64) * 64);
  const need = padded.reduce((sum, bytes) => sum + bytes, 0);
  if (arena.bytes < need) {
    arena.start = benchModule('baseline').bl_alloc(need) >>> 0;
    arena.bytes = need;
    if (arena.start === 0) throw new Error(`the baseline module cannot allocate ${need} bytes`);
  }
  let end = arena.start;
  return padded.map((bytes) => {
    end += bytes;
    return end - bytes;
  });
}
