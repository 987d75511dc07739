/**
 * `npm run build:docs`: the reference of the public interface, made by TypeDoc from the
 * declarations that users get (dist/types) into build/api. The build of the demo copies it to
 * build/web/api. A warning, such as a public name without documentation, is an error.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from './build.js';
import { isMain, main, root, SetupError, withLock } from './setup/run.js';

/** Entries of the package. Each gets a page. */
const ENTRIES = {
  'fused-matmul': 'index',
  'fused-matmul/layer': 'layer-index',
  'fused-matmul/llama': 'llama/index',
  'fused-matmul/openai': 'openai/index',
  'fused-matmul/gpu': 'gpu/index',
};

/**
 * Intermediate types between the operations and those of a worker or a sequence. The reference
 * shows the resulting types instead.
 */
const NOT_EXPORTED = [
  'In',
  'MethodName',
  'Promised',
  'SequenceValue',
  'WorkerOnlyOptions',
  'dist/types/worker/client.d.ts:WorkerKernels',
];

const COMPILER_OPTIONS = {
  module: 'nodenext',
  target: 'es2022',
  lib: ['es2023', 'esnext.disposable', 'dom', 'dom.iterable'],
  types: [],
  strict: true,
  noEmit: true,
};

/**
 * Content-Security-Policy of the reference's pages, in the pages and from the demo's server.
 * TypeDoc's script makes a style sheet.
 */
export const DOCS_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'";

/** @type {import('typedoc').ReflectionKind.KindString[]} */
const DOCUMENTED = ['Variable', 'Function', 'Class', 'Interface', 'Property', 'Method', 'Accessor'];

const API_FOLDER = path.join(root, 'build/api');
const STAMP = path.join(root, 'build/api.stamp');

/**
 * TypeDoc names a page after the module tag of its entry. The entries themselves cannot have that
 * tag, because they re-export each other.
 */
function writeEntries() {
  const folder = path.join(root, 'build/docs');
  mkdirSync(folder, { recursive: true });
  return Object.entries(ENTRIES).map(([name, entry]) => {
    const file = path.join(folder, `${name.replaceAll('/', '-')}.d.ts`);
    writeFileSync(file, `/** @module ${name} */\nexport * from '../../dist/types/${entry}.js';\n`);
    return file;
  });
}

/** A key that changes with the declarations and with the code that uses them. */
function fingerprint() {
  const hash = createHash('sha256').update(readFileSync(new URL(import.meta.url)));
  const types = path.join(root, 'dist/types');
  for (const name of /** @type {string[]} */ (readdirSync(types, { recursive: true })).sort())
    if (name.endsWith('.d.ts')) hash.update(name).update(readFileSync(path.join(types, name)));
  return hash.digest('hex');
}

/** @returns {Promise<string[]>}  warnings */
async function runTypeDoc() {
  const entryPoints = writeEntries();
  const tsconfig = path.join(root, 'build/docs/tsconfig.json');
  writeFileSync(tsconfig, JSON.stringify({ compilerOptions: COMPILER_OPTIONS, include: ['*.d.ts'] }));
  const { Application } = await import('typedoc');
  const app = await Application.bootstrap({
    entryPoints,
    tsconfig,
    name: 'fused-matmul',
    readme: 'none',
    disableSources: true,
    excludePrivate: true,
    excludeProtected: true,
    excludeExternals: true,
    validation: { notExported: true, invalidLink: true, notDocumented: true },
    requiredToBeDocumented: DOCUMENTED,
    intentionallyNotExported: NOT_EXPORTED,
    hideGenerator: true,
    favicon: path.join(root, 'web/public/icon.svg'),
    githubPages: false,
  });
  /** @type {string[]} */
  const warnings = [];
  const { LogLevel } = await import('typedoc');
  app.logger.log = (message, level) => {
    if (level >= LogLevel.Warn) warnings.push(message);
  };
  const project = await app.convert();
  if (!project) throw new SetupError(`TypeDoc found errors:\n${warnings.join('\n')}`);
  app.validate(project);
  await app.generateDocs(project, API_FOLDER);
  keepPolicy();
  return warnings;
}

/**
 * Puts the policy into the pages, and moves the script of each page, which the policy forbids, into
 * a file.
 */
function keepPolicy() {
  const pages = /** @type {string[]} */ (readdirSync(API_FOLDER, { recursive: true })).filter((name) =>
    name.endsWith('.html'),
  );
  /** @type {Set<string>} */
  const scripts = new Set();
  for (const name of pages) {
    const file = path.join(API_FOLDER, name);
    const base = '../'.repeat(name.split(path.sep).length - 1);
    const html = readFileSync(file, 'utf8').replace(
      '<meta charset="utf-8"/>',
      `$&<meta http-equiv="Content-Security-Policy" content="${DOCS_POLICY}"/>`,
    );
    const moved = html.replace(/<script>(.*?)<\/script>/gs, (_, code) => {
      scripts.add(code);
      return `<script src="${base}assets/theme.js"></script>`;
    });
    writeFileSync(file, moved);
  }
  if (scripts.size > 1)
    throw new SetupError(`TypeDoc's pages have ${scripts.size} different scripts in them`);
  writeFileSync(path.join(API_FOLDER, 'assets/theme.js'), [...scripts].join(''));
}

/**
 * Makes the reference from dist/types, unless it is there already.
 * @returns {Promise<{ folder: string, warnings: string }>}  the names without documentation
 */
export async function buildDocs() {
  const stamp = fingerprint();
  const known = () => (existsSync(STAMP) ? readFileSync(STAMP, 'utf8') : '').split('\n');
  const isFresh = () => known()[0] === stamp;
  if (!isFresh()) {
    await withLock('api', async () => {
      if (!isFresh()) writeFileSync(STAMP, [stamp, ...(await runTypeDoc())].join('\n'));
    });
  }
  return { folder: API_FOLDER, warnings: known().slice(1).join('\n') };
}

if (isMain(import.meta.url)) {
  await main(async () => {
    await build({ quiet: true });
    const { folder, warnings } = await buildDocs();
    if (warnings) throw new SetupError(`the reference is not complete:\n${warnings}`);
    process.stdout.write(`${path.relative(root, folder)}/index.html\n`);
  });
}
