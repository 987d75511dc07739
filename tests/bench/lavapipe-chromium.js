/**
 * Chromium with lavapipe as its adapter without a GPU: a copy of Debian's Chromium in
 * .toolchain, in which a small library stands in for SwiftShader and passes on to Mesa. Unlike
 * SwiftShader, lavapipe has shader-f16, which other engines demand.
 */
import { cpSync, existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { ensureMesa } from '../../scripts/setup/mesa.js';
import { root, run, which } from '../../scripts/setup/run.js';

const DEBIAN = '/usr/lib/chromium';
const FOLDER = path.join(root, '.toolchain/lavapipe-chromium');
const SOURCE = fileURLToPath(new URL('swiftshader-stand-in.c', import.meta.url));

/** Flags with which a page gets a software adapter. */
const SOFTWARE_FLAGS = Object.freeze([
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
]);

/** @returns {Promise<import('playwright-core').Browser>} */
export async function launchLavapipeChromium() {
  const mesa = await ensureMesa();
  if (typeof mesa === 'string') throw new Error(mesa);
  const compiler = ['cc', 'gcc', 'clang'].map(which).find(Boolean);
  if (!compiler)
    throw new Error('a C compiler (cc) is needed for the library that stands in for SwiftShader');
  if (!existsSync(path.join(DEBIAN, 'vk_swiftshader_icd.json')))
    throw new Error(`Debian's Chromium is needed: ${DEBIAN} is not there`);
  const at = (/** @type {string} */ name) => path.join(FOLDER, name);
  if (!existsSync(at('complete')) || !readFileSync(at('complete')).equals(readFileSync(SOURCE))) {
    rmSync(FOLDER, { recursive: true, force: true });
    cpSync(DEBIAN, FOLDER, { recursive: true, verbatimSymlinks: true });
    const flags = ['-O2', '-shared', '-fPIC', '-fvisibility=hidden'];
    await run(compiler, [...flags, SOURCE, '-o', at('libvk_swiftshader.so'), '-ldl'], { quiet: true });
    cpSync(mesa.lavapipe, at('vk_swiftshader_icd.json'));
    cpSync(SOURCE, at('complete'));
  }
  return chromium.launch({
    executablePath: at('chromium'),
    headless: true,
    args: [...SOFTWARE_FLAGS, '--disable-gpu-sandbox'],
    ignoreDefaultArgs: ['--disable-gpu'],
    env: {
      .../** @type {Record<string, string>} */ (process.env),
      VK_ICD_FILENAMES: mesa.lavapipe,
      LD_LIBRARY_PATH: mesa.libraries,
      STAND_IN_LOADER: path.join(mesa.libraries, 'libvulkan.so.1'),
      MESA_SHADER_CACHE_DIR: path.join(root, '.toolchain/mesa/cache'),
    },
  });
}
