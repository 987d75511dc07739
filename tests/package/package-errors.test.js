/**
 * Errors that users get if the package's files are not where its code looks for them: the error
 * says what to do.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { packedPackage } from '../helpers/consumers.js';

/** @type {ReturnType<typeof packedPackage>} */
let installed;
before(() => {
  installed = packedPackage();
});
after(() => installed?.remove());

/**
 * @param {string} app @param {string} code
 * @param {string} [file]  its ending decides the kind of module
 */
function run(app, code, file = 'main.mjs') {
  writeFileSync(path.join(app, file), code);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], { cwd: app, encoding: 'utf8' });
  return { status, stdout, stderr };
}

const CREATE = `
  import { createKernels } from 'fused-matmul';
  const error = await createKernels(OPTIONS).catch((error) => error);
  console.log(JSON.stringify({ name: error.name, code: error.code, message: error.message, url: String(error.url) }));
`;

/** @param {string} app @param {string} [options] */
function creationError(app, options = '') {
  const { status, stdout, stderr } = run(app, CREATE.replace('OPTIONS', options));
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

test('without its .wasm files: which were looked for, and what to do', () => {
  const app = installed.app('no-wasm');
  const dist = path.join(app, 'node_modules/fused-matmul/dist');
  for (const name of readdirSync(dist)) if (name.endsWith('.wasm')) rmSync(path.join(dist, name));
  for (const options of ['', "{ isa: 'simd128' }", "{ isa: 'scalar', threads: 1 }"]) {
    const { name, code, message, url } = creationError(app, options);
    assert.deepEqual([name, code], ['LoadError', 'FM_LOAD']);
    assert.match(message, /cannot read file:.*dist\/fused-[\w-]+\.wasm: ENOENT/);
    assert.match(
      message,
      /put the \.wasm files there \(npm run build, or the bundler\), or pass createKernels\(\{ wasm \}\)/,
    );
    assert.match(url, /\.wasm$/);
  }
});

test('bundled without its .wasm files being taken along: the same, before anything else breaks', () => {
  const app = installed.app('moved');
  const library = path.join(app, 'node_modules/fused-matmul/js');
  cpSync(library, path.join(app, 'bundle/js'), { recursive: true });
  const code = CREATE.replace('OPTIONS', '').replace("'fused-matmul'", "'./bundle/js/index.js'");
  const { status, stdout, stderr } = run(app, code);
  assert.equal(status, 0, stderr);
  assert.match(JSON.parse(stdout).message, /bundle\/dist\/fused-[\w-]+\.wasm.*put the \.wasm files there/);
});

/** @type {[string, number, string, RegExp][]} */
const ANSWERS = [
  ['a page, as servers of one-page apps do', 200, 'text/html', /is no WebAssembly but text\/html/],
  ['not found', 404, 'text/html', /cannot fetch http.*: HTTP 404/],
];
for (const [what, status, type, expected] of ANSWERS) {
  test(`a server that answers a .wasm with ${what}`, async () => {
    const { createKernels, LoadError } = await import('../../js/index.js');
    const server = createServer((_, response) =>
      response.writeHead(status, { 'content-type': type }).end('<!doctype html>\n<title>An app</title>'),
    );
    await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
    const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
    const wasm = `http://127.0.0.1:${port}/assets/fused-simd128.wasm`;
    try {
      await assert.rejects(createKernels({ wasm }), (/** @type {any} */ error) => {
        assert.ok(error instanceof LoadError);
        assert.match(error.message, expected);
        assert.equal(error.url, wasm);
        return true;
      });
    } finally {
      server.close();
    }
  });
}

test('a path into the package that is no entry of it: Node names the entry', () => {
  const { status, stderr } = run(installed.app('inside'), "import 'fused-matmul/js/wasm/kernels.js';");
  assert.notEqual(status, 0);
  assert.match(stderr, /ERR_PACKAGE_PATH_NOT_EXPORTED.*/);
});

test('CommonJS works by require(esm), and elsewhere Node says that this is an ES module', () => {
  const app = installed.app('required');
  const { status, stdout, stderr } = run(
    app,
    "console.log(typeof require('fused-matmul').createKernels)",
    'main.cjs',
  );
  if (/** @type {any} */ (process).features.require_module) {
    assert.equal(status, 0, stderr);
    assert.equal(stdout.trim(), 'function');
  } else assert.match(stderr, /ERR_REQUIRE_ESM/);
});
