/**
 * Bundles the grammar engine, XGrammar, into dist/grammar-engine.js.
 *
 * `@mlc-ai/web-xgrammar` holds its wasm module and Emscripten's loader in one script. The script
 * itself cannot be imported in Node, prints its errors, and has one instance for all, which an error
 * makes unusable. So only its module and its loader are taken, and the loader is told what the
 * environment is.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { bundlePackage } from './bundle-package.js';

/** The part of the engine's interface that js/llama/structured/engine.js uses. */
const DECLARATION = `interface Owned {
  delete(): void;
}
interface List<T> extends Owned {
  push_back(value: T): void;
}
interface Grammar extends Owned {}
interface TokenizerInfo extends Owned {}
interface CompiledGrammar extends Owned {}
interface GrammarCompiler extends Owned {
  CompileGrammar(grammar: Grammar): CompiledGrammar;
}
export interface GrammarMatcher extends Owned {
  AcceptToken(token: number, verbose: boolean): boolean;
  GetNextTokenBitmask(nVocab: number): List<number>;
}
export interface Engine {
  HEAP8: Int8Array;
  VectorString: new () => List<Uint8Array | string>;
  VectorInt: new () => List<number>;
  vecIntToView(list: List<number>): Int32Array;
  Grammar: { FromEBNF(text: string, root: string): Grammar };
  TokenizerInfo: new (
    tokens: List<Uint8Array | string>,
    kind: 'RAW',
    nVocab: number,
    ends: List<number>,
    spaceInFront: boolean,
  ) => TokenizerInfo;
  GrammarCompiler: new (tokenizer: TokenizerInfo, nThreads: number, cached: boolean) => GrammarCompiler;
  GrammarMatcher: new (
    grammar: CompiledGrammar,
    ends: List<number> | undefined,
    endsByItself: boolean,
    nBack: number,
  ) => GrammarMatcher;
}
/** Makes an engine with a memory of its own. What it would print goes to \`log\`. */
export function createEngine(log: (text: string) => void): Promise<Engine>;
`;

const SOURCE = `import load, { wasm } from './binding.js';
let compiled;
export async function createEngine(log) {
  compiled ??= WebAssembly.compile(Uint8Array.from(atob(wasm), (char) => char.charCodeAt(0)));
  const module = await compiled;
  return new Promise((resolve, reject) => {
    const instantiateWasm = (imports, done) => {
      WebAssembly.instantiate(module, imports).then(done, reject);
      return {};
    };
    load({ instantiateWasm, print: log, printErr: log }).then(resolve, reject);
  });
}`;

/**
 * @param {string} root  the repository
 * @returns {Promise<Map<string, string>>}  file name in dist/ -> content
 */
export async function bundleGrammar(root) {
  const folder = path.join(root, 'node_modules/@mlc-ai/web-xgrammar');
  const licences = ['Apache-2.0', 'picojson'].map((name) =>
    readFileSync(path.join(root, `scripts/licences/${name}.txt`), 'utf8').trimEnd(),
  );
  const notice = [
    'XGrammar\nCopyright (c) 2024 by XGrammar Contributors',
    'Changed by fused-matmul: only the wasm module and its loader, without the parts for Node.',
  ];
  const licence = [...notice, licences[0], 'It contains picojson:', licences[1]].join('\n\n');
  const text = await bundlePackage(folder, SOURCE, {
    licence,
    define: { window: 'undefined', importScripts: 'undefined' },
    plugins: [{ name: 'binding', setup: (bundler) => takeBinding(bundler, folder) }],
  });
  return new Map([
    ['grammar-engine.js', text],
    ['grammar-engine.d.ts', DECLARATION],
  ]);
}

/** @param {import('esbuild').PluginBuild} bundler @param {string} folder */
function takeBinding(bundler, folder) {
  bundler.onResolve({ filter: /^\.\/binding\.js$/ }, ({ path: name }) => ({
    path: name,
    namespace: 'binding',
  }));
  bundler.onLoad({ filter: /.*/, namespace: 'binding' }, () => ({
    contents: bindingOf(readFileSync(path.join(folder, 'lib/index.js'), 'utf8')),
  }));
}

/**
 * The loader, as a module that exports it and the bytes of the wasm module in base64.
 * @param {string} script  the package's script
 * @returns {string}
 * @throws {Error} the script looks different
 */
function bindingOf(script) {
  const start = script.indexOf('var Module = (() => {');
  const end = script.indexOf('})();', start) + 5;
  if (start < 0 || end < 5) throw new Error('@mlc-ai/web-xgrammar has another loader');
  let wasm = '';
  const loader = script
    .slice(start, end)
    .replace(/data:application\/octet-stream;base64,([\w+/=]{1000,})/, (_, bytes) => {
      wasm = bytes;
      return 'grammar-engine.wasm';
    });
  const changes = {
    'the address of the script': [
      /\(typeof document === 'undefined' && [^;]*?document\.baseURI\)\.href\)\)/g,
      '""',
    ],
    'what is done in Node': [/if\(ENVIRONMENT_IS_NODE\)\{/g, 'if(false){'],
    'the test for Node': [/var ENVIRONMENT_IS_NODE=[^;]*;/g, ''],
  };
  let text = loader;
  for (const [what, [pattern, instead]] of Object.entries(changes)) {
    if (!(/** @type {RegExp} */ (pattern).test(text))) throw new Error(`@mlc-ai/web-xgrammar lacks ${what}`);
    text = text.replace(pattern, /** @type {string} */ (instead));
  }
  if (wasm === '') throw new Error('@mlc-ai/web-xgrammar has no wasm module');
  return `${text}\nexport const wasm = ${JSON.stringify(wasm)};\nexport default Module;`;
}
