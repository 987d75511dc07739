/**
 * The tarball in apps whose tools are not among this repository's dependencies: webpack, Rollup,
 * Next.js, Deno, Bun. They are installed into build/consumers/ on first use, in the versions that
 * tests/consumers/ names: `npm run test:consumers`.
 */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { root } from '../../scripts/setup/run.js';
import { skipWithoutChromium } from '../browser/helpers.js';
import { checkResult, copyFixtures, MODEL, npm, Pages, packedPackage, runIn } from '../helpers/consumers.js';

const skip =
  !process.env.FM_CONSUMERS && 'installs a few hundred megabytes of other tools: npm run test:consumers';
const skipPage = skip || skipWithoutChromium();
const pages = new Pages();
/** @type {ReturnType<typeof packedPackage>} */
let installed;

before(() => {
  if (!skip) installed = packedPackage();
});

after(async () => {
  await pages.close();
  installed?.remove();
});

/**
 * A new app with the tools of its package.json and the tarball.
 * @param {string} name
 * @param {...string} fixtures
 */
function appWithTools(name, ...fixtures) {
  const app = path.join(root, 'build/consumers', name);
  const wanted = readFileSync(path.join(root, 'tests/consumers', name, 'package.json'), 'utf8');
  const stamp = path.join(app, 'node_modules/.installed-for');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    rmSync(app, { recursive: true, force: true });
    mkdirSync(app, { recursive: true });
    writeFileSync(path.join(app, 'package.json'), wanted);
    npm(['install', '--ignore-scripts', '--no-package-lock'], app);
    writeFileSync(stamp, wanted);
  }
  for (const entry of readdirSync(app)) {
    if (entry !== 'node_modules') rmSync(path.join(app, entry), { recursive: true });
  }
  const packages = path.join(installed.app('template'), 'node_modules');
  for (const dependency of readdirSync(packages)) {
    if (dependency.startsWith('.')) continue;
    rmSync(path.join(app, 'node_modules', dependency), { recursive: true, force: true });
    cpSync(path.join(packages, dependency), path.join(app, 'node_modules', dependency), { recursive: true });
  }
  copyFixtures(app, [...fixtures, name]);
  return app;
}

/** @param {string} app @param {string} script  below node_modules @param {string[]} args */
const tool = (app, script, args = /** @type {string[]} */ ([])) =>
  runIn(app, process.execPath, [path.join(app, 'node_modules', script), ...args], {
    NEXT_TELEMETRY_DISABLED: '1',
  });

test('webpack 5', { skip: skipPage }, async () => {
  const app = appWithTools('webpack', 'page');
  const output = tool(app, 'webpack-cli/bin/cli.js');
  assert.doesNotMatch(output, /warning/i);
  const site = path.join(app, 'dist');
  cpSync(path.join(app, 'index.html'), path.join(site, 'index.html'));
  cpSync(MODEL, path.join(site, 'model.gguf'));
  await checkResult(await pages.run(site), { isa: 'relaxed', threads: true });
});

test('Rollup', { skip: skipPage }, async () => {
  const app = appWithTools('rollup', 'page');
  tool(app, 'rollup/dist/bin/rollup', ['--config', '--failAfterWarnings']);
  const site = path.join(app, 'public');
  cpSync(path.join(app, 'index.html'), path.join(site, 'index.html'));
  cpSync(MODEL, path.join(site, 'model.gguf'));
  await checkResult(await pages.run(site), { isa: 'relaxed', threads: true });
});

for (const bundler of ['turbopack', 'webpack']) {
  test(`Next.js, a client component, ${bundler}`, { skip: skipPage }, async () => {
    const app = appWithTools('next');
    mkdirSync(path.join(app, 'public'));
    cpSync(MODEL, path.join(app, 'public/model.gguf'));
    tool(app, 'next/dist/bin/next', ['build', `--${bundler}`]);
    await checkResult(await pages.run(path.join(app, 'out')), { isa: 'relaxed', threads: true });
  });
}

/**
 * The executable in the package for this machine.
 * @param {string} scope  a folder of node_modules @param {RegExp} name
 */
function executable(scope, name) {
  const files = /** @type {string[]} */ (readdirSync(scope, { recursive: true }));
  return path.join(scope, files.find((file) => name.test(file)) ?? assert.fail(`no ${name} in ${scope}`));
}

test('Deno', { skip }, async (t) => {
  const app = appWithTools('deno', 'node');
  const deno = executable(path.join(app, 'node_modules/@deno'), /[\\/]deno(\.exe)?$/);
  t.diagnostic(`ran: ${runIn(app, deno, ['--version']).split('\n')[0]}`);
  const main = ['run', '--no-remote', '--allow-read', 'main.js', MODEL];
  await checkResult(JSON.parse(runIn(app, deno, main)));
});

test('Bun', { skip }, async (t) => {
  const app = appWithTools('bun', 'node');
  const bun = executable(path.join(app, 'node_modules/@oven'), /[\\/]bun(\.exe)?$/);
  t.diagnostic(`ran: Bun ${runIn(app, bun, ['--version']).trim()}`);
  await checkResult(JSON.parse(runIn(app, bun, ['main.js', MODEL])));
});
