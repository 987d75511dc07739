/**
 * Finds an Emscripten that compiles relaxed SIMD to its final opcodes. A probe is built to find
 * out, since some distributions ship an Emscripten that builds broken modules without an error. If
 * there is none, one is installed into .toolchain.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ask, environment, root, run, SetupError, say, which } from './run.js';

const PROBE = `#include <wasm_simd128.h>
void dot(v128_t *d, const v128_t *a) {
  d[0] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a[0], a[1], d[0]);
  d[1] = wasm_i16x8_relaxed_dot_i8x16_i7x16(a[0], a[1]);
}
`;
/** The final opcodes of the two instructions; earlier drafts had others. */
const PROBE_OPCODES = [
  [0xfd, 0x93, 0x02],
  [0xfd, 0x92, 0x02],
];

const privateRoot = path.join(root, '.toolchain/emscripten');
const cacheFile = path.join(root, 'build/emscripten.json');

/** @typedef {{ root: string, version: string, env: NodeJS.ProcessEnv }} Emscripten */

/**
 * The environment in which an Emscripten is run. A private one must not see the settings of
 * another.
 * @param {string} emscriptenRoot
 * @returns {NodeJS.ProcessEnv}
 */
function environmentOf(emscriptenRoot) {
  const env = environment();
  if (emscriptenRoot === privateRoot) {
    for (const name of [
      'EM_CONFIG',
      'EM_CACHE',
      'EM_FROZEN_CACHE',
      'EM_LLVM_ROOT',
      'EM_BINARYEN_ROOT',
      'EMSDK',
    ]) {
      delete env[name];
    }
  }
  return { ...env, EMSCRIPTEN_ROOT_PATH: emscriptenRoot };
}

/** @returns {string[]}  folders that contain an emcc, best first */
function candidates() {
  const { EMSCRIPTEN_ROOT_PATH, EMSDK } = process.env;
  const emcc = which('emcc');
  const found = [
    EMSCRIPTEN_ROOT_PATH,
    EMSDK && path.join(EMSDK, 'upstream/emscripten'),
    which('em-config') && ask('em-config', ['EMSCRIPTEN_ROOT']),
    emcc && path.dirname(realpathSync(emcc)),
    privateRoot,
  ];
  const usable = (/** @type {string | undefined} */ folder) =>
    folder &&
    existsSync(path.join(folder, 'emcc')) &&
    existsSync(path.join(folder, 'cmake/Modules/Platform/Emscripten.cmake'));
  return [...new Set(found.filter(usable))].map((folder) => path.resolve(/** @type {string} */ (folder)));
}

/**
 * Builds the probe, and inspects it.
 * @param {string} emscriptenRoot
 * @returns {string}  '' if it is good, else the reason
 */
function probe(emscriptenRoot) {
  const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-probe-'));
  try {
    writeFileSync(path.join(folder, 'probe.c'), PROBE);
    const flags = [
      '-O2',
      '-msimd128',
      '-mrelaxed-simd',
      '-sSTANDALONE_WASM',
      '--no-entry',
      '-sEXPORTED_FUNCTIONS=_dot',
    ];
    const result = spawnSync(path.join(emscriptenRoot, 'emcc'), [...flags, 'probe.c', '-o', 'probe.wasm'], {
      cwd: folder,
      env: environmentOf(emscriptenRoot),
      encoding: 'utf8',
    });
    if (result.status !== 0) {
      const lines = `${result.error?.message ?? ''}${result.stderr}`.trim().split('\n');
      return lines.find((line) => /error|exception|not found/i.test(line)) ?? lines.at(-1) ?? 'it fails';
    }
    const bytes = readFileSync(path.join(folder, 'probe.wasm'));
    const holdsAll = PROBE_OPCODES.every((opcode) => bytes.includes(Buffer.from(opcode)));
    return holdsAll ? '' : 'it emits relaxed-SIMD opcodes of an earlier draft';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * A key that changes if another Emscripten is installed at the same place.
 * @param {string} emscriptenRoot
 */
function identity(emscriptenRoot) {
  const times = ['emcc', 'emcc.py', 'emscripten-version.txt', '.emscripten'].map(
    (file) => statSync(path.join(emscriptenRoot, file), { throwIfNoEntry: false })?.mtimeMs ?? 0,
  );
  return `${emscriptenRoot} ${times.join(' ')} ${process.execPath}`;
}

/** @param {string} emscriptenRoot @returns {Emscripten} */
function describe(emscriptenRoot) {
  const file = path.join(emscriptenRoot, 'emscripten-version.txt');
  const version = existsSync(file)
    ? readFileSync(file, 'utf8').trim().replaceAll('"', '')
    : 'of unknown version';
  return { root: emscriptenRoot, version, env: environmentOf(emscriptenRoot) };
}

/** @returns {Emscripten | undefined} */
function findEmscripten() {
  const known = existsSync(cacheFile) ? JSON.parse(readFileSync(cacheFile, 'utf8')) : {};
  for (const folder of candidates()) {
    if (known.good === identity(folder)) return describe(folder);
    const reason = probe(folder);
    if (reason === '') {
      mkdirSync(path.dirname(cacheFile), { recursive: true });
      writeFileSync(cacheFile, `${JSON.stringify({ good: identity(folder) })}\n`);
      return describe(folder);
    }
    say(`Emscripten in ${folder} cannot be used: ${reason}`);
  }
  return undefined;
}

/** @returns {Promise<Emscripten>} */
export async function ensureEmscripten() {
  const found = findEmscripten();
  if (found) return found;
  if (!existsSync('/etc/debian_version')) {
    throw new SetupError(
      'no Emscripten >= 3.1.69 found: install emsdk (https://emscripten.org) and set EMSDK',
    );
  }
  say('installing Emscripten into .toolchain (about half a minute)');
  await run(
    'bash',
    [path.join(root, 'scripts/setup-emscripten.sh'), '--force', path.join(root, '.toolchain')],
    {
      hint: 'or install emsdk (https://emscripten.org) and set EMSDK',
    },
  );
  const installed = findEmscripten();
  if (!installed)
    throw new SetupError('the Emscripten just installed into .toolchain cannot build relaxed SIMD');
  return installed;
}
