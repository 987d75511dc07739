/**
 * `npm run build:docs`: the reference of the public interface, from the declarations that users get (dist/types), by TypeDoc
 * into build/api. The demo's build takes it along, to build/web/api. A warning, such as something public without a word of
 * documentation, is an error.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from './build.js';
import { isMain, main, root, SetupError } from './setup/run.js';

/** A page each. */
const ENTRIES = {
  'fused-matmul': 'index',
  'fused-matmul/layer': 'layer-index',
  'fused-matmul/llama': 'llama/index',
};

/** Steps on the way from the operations to those of a worker, and of a sequence: what they come to is shown. */
const NOT_EXPORTED = [
  'In',
  'MethodName',
  'Promised',
  'SequenceValue',
  'WorkerOnlyOptions',
  'dist/types/worker-client.d.ts:WorkerKernels',
];

const DOCUMENTED = ['Variable', 'Function', 'Class', 'Interface', 'Property', 'Method', 'Accessor'];

export const API_FOLDER = path.join(root, 'build/api');

/** TypeDoc names a page after the module tag of its entry, which the entries themselves cannot have: they re-export each other. */
function writeEntries() {
  const folder = path.join(root, 'build/docs');
  mkdirSync(folder, { recursive: true });
  return Object.entries(ENTRIES).map(([name, entry]) => {
    const file = path.join(folder, `${name.replaceAll('/', '-')}.d.ts`);
    writeFileSync(file, `/** @module ${name} */\nexport * from '../../dist/types/${entry}.js';\n`);
    return file;
  });
}

/** @returns {Promise<string[]>}  warnings */
export async function buildDocs() {
  await build({ quiet: true });
  const entryPoints = writeEntries();
  const tsconfig = path.join(root, 'build/docs/tsconfig.json');
  writeFileSync(
    tsconfig,
    '{ "compilerOptions": { "module": "nodenext", "target": "es2022", "lib": ["es2023", "esnext.disposable", "dom", "dom.iterable"], "types": [], "strict": true, "noEmit": true }, "include": ["*.d.ts"] }\n',
  );
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
    navigationLinks: { Demo: '../' },
    hideGenerator: true,
    githubPages: false,
    logLevel: 'Warn',
  });
  /** @type {string[]} */
  const warnings = [];
  app.logger.log = (message, level) => {
    if (level >= 2) warnings.push(message);
  };
  const project = await app.convert();
  if (!project) throw new SetupError(`TypeDoc found errors:\n${warnings.join('\n')}`);
  app.validate(project);
  await app.generateDocs(project, API_FOLDER);
  return warnings;
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const warnings = await buildDocs();
    if (warnings.length > 0) throw new SetupError(`the reference is not complete:\n${warnings.join('\n')}`);
    process.stdout.write(`${path.relative(root, API_FOLDER)}/index.html\n`);
  });
}
