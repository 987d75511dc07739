/** The package as users get it: the tarball, and apps (tests/consumers/) that have it installed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Llama, openGguf } from '../../js/llama/index.js';
import { npmCommand } from '../../scripts/setup/packages.js';
import { environment, root } from '../../scripts/setup/run.js';
import { launchChromium, openPage, serveFolder } from '../browser/helpers.js';
import { openSelfDriven } from '../browser/self-driven.js';
import { PROMPT, TENSOR } from '../consumers/program.js';
import { ReferenceProduct, ReferenceWeight } from './bounds.js';
import { referenceByName } from './reference.js';

export const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
export const MODEL = path.join(root, 'web/public/tiny-tales-Q4_K_M.gguf');
const CONSUMERS = path.join(root, 'tests/consumers');

/** Headers that make a page cross-origin isolated. */
export const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

/** @param {string[]} args @param {string} cwd */
export function npm(args, cwd) {
  const [file, first] = npmCommand();
  return runIn(cwd, file, [...first, ...args, '--no-audit', '--no-fund', '--loglevel=error']);
}

/**
 * @param {string} cwd
 * @param {string} file
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {string}  its output
 */
export function runIn(cwd, file, args, env = {}) {
  const options = { cwd, env: { ...environment(), ...env }, maxBuffer: 1 << 26 };
  const { status, stdout, stderr, error } = spawnSync(file, args, { ...options, encoding: 'utf8' });
  const command = [path.basename(file), ...args].join(' ');
  assert.equal(status, 0, `${command}\n${error ?? ''}${stdout}\n${stderr}`);
  return stdout;
}

/**
 * @typedef {{ filename: string, size: number, unpackedSize: number, files: { path: string,
 *   size: number }[] }} Packed
 */

/** @param {string} from  a package's folder @param {string} to @returns {Packed} */
function pack(from, to) {
  const [packed] = JSON.parse(npm(['pack', '--json', '--ignore-scripts', '--pack-destination', to], from));
  return packed;
}

/**
 * A folder with the packed package, which is installed without a network in a template from which
 * apps are copied.
 * @returns {{ folder: string, packed: Packed, tarball: string, remove: () => void,
 *   app: (name: string, ...fixtures: string[]) => string }}  app: makes an app of these folders of
 *   tests/consumers and the program, and returns its path
 */
export function packedPackage() {
  const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-package-'));
  const packed = pack(root, folder);
  const template = path.join(folder, 'template');
  mkdirSync(template);
  writeFileSync(path.join(template, 'package.json'), '{ "private": true, "type": "module" }');
  const tarball = path.join(folder, packed.filename);
  npm(['install', '--offline', '--ignore-scripts', tarball], template);
  return {
    folder,
    packed,
    tarball,
    remove: () => rmSync(folder, { recursive: true, force: true }),
    app(name, ...fixtures) {
      const app = path.join(folder, 'apps', name);
      if (!existsSync(app)) cpSync(template, app, { recursive: true, verbatimSymlinks: true });
      copyFixtures(app, fixtures);
      return app;
    },
  };
}

/** @param {string} app @param {string[]} fixtures  folders of tests/consumers */
export function copyFixtures(app, fixtures) {
  for (const fixture of fixtures) cpSync(path.join(CONSUMERS, fixture), app, { recursive: true });
  cpSync(path.join(CONSUMERS, 'program.js'), path.join(app, 'program.js'));
}

/** @type {Promise<{ product: ReferenceProduct, text: string }> | undefined} */
let expected;

/**
 * Asserts that the program's result is right: its numbers are compared with float64, within the
 * bound of every kernel.
 * @param {any} result
 * @param {{ isa?: string, threads?: boolean }} [wanted]  isa: default any with SIMD; threads:
 *   whether several are required
 */
export async function checkResult(result, { isa, threads } = {}) {
  expected ??= expectedResult();
  const { product, text } = await expected;
  assert.deepEqual([result.type, result.nRows, result.nCols], ['Q4_K', product.w.nRows, product.w.nCols]);
  for (const { y, info } of [result, result.worker]) {
    assert.equal(info.version, manifest.version);
    if (isa) assert.equal(info.isa, isa, info.reason);
    else assert.match(info.isa, /^(relaxed|simd128)$/, info.reason);
    if (threads !== undefined) assert.equal(info.threads > 1, threads, info.threadsReason);
    product.check(Float32Array.from(y), { activation: 1, what: `${TENSOR} by ${info.isa}` });
  }
  assert.equal(result.text, text);
}

async function expectedResult() {
  const gguf = await openGguf(MODEL);
  const { type, nRows, nCols } = gguf.tensor(TENSOR);
  const bytes = await gguf.read(TENSOR);
  const x = Float32Array.from({ length: 3 * nCols }, (_, i) => Math.sin(i) * (1 + (i % 7)));
  const known = referenceByName.get(type) ?? assert.fail(type);
  const product = new ReferenceProduct(new ReferenceWeight(known, bytes, nRows, nCols), x, 3);
  const llama = await Llama.load(gguf);
  let text = '';
  for await (const piece of llama.generate(PROMPT, { maxTokens: 12, temperature: 0 })) text += piece;
  llama.dispose();
  return { product, text };
}

/** Chromium for a test file. The first page starts it. */
export class Pages {
  /** @type {import('playwright-core').Browser | undefined} */
  #browser;

  /**
   * Serves a folder, opens its page and returns the result of its program.
   * @param {string} folder
   * @param {{ headers?: Record<string, string>, path?: string }} [options]
   */
  async run(folder, { headers = ISOLATION, path: at = '' } = {}) {
    const server = await serveFolder(folder, { headers });
    try {
      return await this.open(server.url + at);
    } finally {
      await server.close();
    }
  }

  /** The result of a page that is already served. @param {string} url */
  async open(url) {
    this.#browser ??= await launchChromium();
    const { page, problems, close } = await openPage(this.#browser, url);
    try {
      const outcome = await page.waitForFunction('globalThis.outcome', undefined, { timeout: 30_000 });
      const { result, error } = /** @type {any} */ (await outcome.jsonValue());
      assert.equal(error, undefined);
      assert.deepEqual(problems, []);
      return result;
    } catch (error) {
      if (problems.length > 0) throw new Error(`${error}\non the page: ${problems.join('\n')}`);
      throw error;
    } finally {
      await close();
    }
  }

  async close() {
    await this.#browser?.close();
  }
}

/**
 * The same in another engine.
 * @param {import('../browser/self-driven.js').Engine} engine
 * @param {string} folder
 */
export async function runInEngine(engine, folder) {
  const opened = await openSelfDriven(engine, { folder, page: 'index.html', headers: ISOLATION });
  try {
    const { result, error } = await opened.evaluate(`
      while (!globalThis.outcome) await new Promise((resolve) => setTimeout(resolve, 20));
      return globalThis.outcome;`);
    assert.equal(error, undefined);
    assert.deepEqual(opened.problems, []);
    return result;
  } finally {
    await opened.close();
  }
}
