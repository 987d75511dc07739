/** Set-up and the commands: their messages when something is missing or wrong. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { packagesAreCurrent } from '../../scripts/setup/packages.js';
import { root, which } from '../../scripts/setup/run.js';
import { bytesMoved } from '../../scripts/start/jobs.js';
import { formatBytes, formatTable } from '../../scripts/start/table.js';

const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-setup-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** @param {string[]} args @param {NodeJS.ProcessEnv} [env] */
const node = (args, env = process.env) =>
  spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' });

test('npm start: --help, wrong arguments, files that are not there or no GGUF', () => {
  assert.match(node(['scripts/start.js', '--help']).stdout, /^usage: npm start/);
  const text = path.join(folder, 'text.gguf');
  writeFileSync(text, 'this is no model, only a text that is longer than a header');
  /** @type {[string[], RegExp][]} */
  const cases = [
    [['--fast'], /unexpected --fast/],
    [['a.gguf', 'b.gguf'], /unexpected b\.gguf/],
    [[path.join(folder, 'absent.gguf')], /there is no file .*absent\.gguf/],
    [[folder], /is no file/],
    [[text], /GGUF/],
  ];
  for (const [args, message] of cases) {
    const { status, stdout, stderr } = node(['scripts/start.js', ...args]);
    assert.equal(status, 1, args.join(' '));
    assert.match(stderr, message);
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
    assert.equal(stdout, '');
  }
});

test('npm start prints the table and ends where stdout is no terminal', () => {
  const { status, stdout, stderr } = node(['scripts/start.js', '--once']);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /instruction set: (relaxed|simd128|scalar)/);
  assert.match(stdout, /^4096 x 4096 \* +Q4_K +1 +int16 /m);
  assert.match(stdout, /memory not used/);
  assert.match(stdout, /^a story by web.*, seed \d+:\n\nOnce upon a time,? .{100}/m);
  assert.match(stdout, /^\d+ tokens, [\d.]+ a second \(prompt [\d.]+\), the first after \d+ ms/m);
  assert.doesNotMatch(stdout, / NO$/m);
});

test('bytes moved: the fused way never writes what it read, dequantised', () => {
  const moved = bytesMoved({
    nRows: 4096,
    nCols: 4096,
    nTokens: 1,
    weightBytes: 9437184,
    activation: 'int16',
  });
  assert.equal(moved.fused, 9437184 + 4 * 4096 + 2 * 2 * 4096 + 4 * 4096);
  assert.equal(moved.naive, 9437184 + 2 * 4 * 4096 * 4096 + 8 * 4096);
  assert.equal(moved.dense, 4 * 4096 * 4096 + 8 * 4096);
});

test('tables align, and bytes have units', () => {
  assert.equal(formatTable(['a', '>bb'], [['xyz', '1']]), 'a    bb\n---  --\nxyz   1\n');
  assert.deepEqual([999, 1000, 12345, 999_999_999].map(formatBytes), [
    '999 B',
    '1.00 KB',
    '12.3 KB',
    '1000 MB',
  ]);
});

test('packages are current when they are what the lock file asks for', () => {
  assert.ok(packagesAreCurrent());
  const copy = path.join(folder, 'packages');
  mkdirSync(path.join(copy, 'node_modules/a'), { recursive: true });
  const write = (/** @type {string} */ file, /** @type {object} */ packages) =>
    writeFileSync(path.join(copy, file), JSON.stringify({ packages }));
  write('package-lock.json', {
    '': {},
    'node_modules/a': { version: '1.0.0' },
    'node_modules/b': { optional: true },
  });
  assert.equal(packagesAreCurrent(copy), false, 'nothing installed');
  write('node_modules/.package-lock.json', { 'node_modules/a': { version: '1.0.0' } });
  assert.equal(packagesAreCurrent(copy), true, 'an optional one may be missing');
  write('node_modules/.package-lock.json', { 'node_modules/a': { version: '1.0.1' } });
  assert.equal(packagesAreCurrent(copy), false, 'another version');
});

/** A folder for PATH with only these programs. @param {string[]} programs */
function pathWith(programs) {
  const bin = mkdtempSync(path.join(folder, 'bin-'));
  for (const name of programs) symlinkSync(which(name) ?? assert.fail(name), path.join(bin, name));
  return bin;
}

const posix = process.platform === 'win32' ? 'needs a POSIX system' : false;

test('without build tools and without the right to install them: one line with the command', {
  skip: posix,
}, () => {
  const script = `
    process.getuid = () => 1000;
    const { ensureSetup } = await import('./scripts/setup.js');
    await ensureSetup({ native: true }).catch((error) => process.stdout.write(error.name + ': ' + error.message));`;
  const { stdout } = node(['--input-type=module', '-e', script], { PATH: pathWith([]), HOME: folder });
  assert.match(
    stdout,
    /^SetupError: the build needs programs that are missing here; run this, then try again: {2}/,
  );
  for (const name of ['cmake', 'ninja', 'python3', 'gcc']) assert.match(stdout, new RegExp(name));
});

test('an Emscripten that cannot build relaxed SIMD is turned down, with the reason', { skip: posix }, () => {
  const broken = path.join(folder, 'broken-emscripten');
  mkdirSync(path.join(broken, 'cmake/Modules/Platform'), { recursive: true });
  writeFileSync(path.join(broken, 'cmake/Modules/Platform/Emscripten.cmake'), '');
  writeFileSync(
    path.join(broken, 'emcc'),
    '#!/bin/sh\necho "emcc: error: relaxed is unknown here" >&2\nexit 1\n',
  );
  chmodSync(path.join(broken, 'emcc'), 0o755);
  const copy = path.join(folder, 'repo');
  cpSync(path.join(root, 'scripts'), path.join(copy, 'scripts'), { recursive: true });
  writeFileSync(path.join(copy, 'package.json'), '{ "type": "module" }');
  writeFileSync(path.join(copy, 'scripts/setup-emscripten.sh'), 'exit 7\n');
  const script = `
    const { ensureEmscripten } = await import('./scripts/setup/emscripten.js');
    await ensureEmscripten().catch((error) => process.stdout.write(error.name));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: copy,
    env: { PATH: pathWith(['bash', 'sh']), EMSCRIPTEN_ROOT_PATH: broken },
    encoding: 'utf8',
  });
  assert.match(stderr, /cannot be used: emcc: error: relaxed is unknown here/);
  assert.match(stdout, /SetupError/);
});

test('the lock file has the optional packages of every platform: npm ci refuses one that lacks some', () => {
  /** @type {Record<string, { optionalDependencies?: Record<string, string> }>} */
  const packages = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  for (const [name, { optionalDependencies = {} }] of Object.entries(packages)) {
    for (const wanted of Object.keys(optionalDependencies)) {
      assert.ok(packages[`node_modules/${wanted}`] ?? packages[`${name}/node_modules/${wanted}`], wanted);
    }
  }
});

test('the lock file names no download address, and there are no runtime dependencies', () => {
  const lock = readFileSync(path.join(root, 'package-lock.json'), 'utf8');
  assert.doesNotMatch(lock, /"resolved"/);
  const { dependencies, peerDependencies, optionalDependencies } = JSON.parse(
    readFileSync(path.join(root, 'package.json'), 'utf8'),
  );
  assert.deepEqual({ ...dependencies, ...peerDependencies, ...optionalDependencies }, {});
});
