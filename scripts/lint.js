/**
 * `npm run lint`: Biome, tsc over the JSDoc types, clang-format; `--write` (`npm run format`)
 * reformats instead.
 */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { buildBundles } from './build.js';
import { main, root, run } from './setup/run.js';

/** @returns {string[]} */
function cFiles() {
  return ['src', 'tests']
    .filter((folder) => existsSync(path.join(root, folder)))
    .flatMap((folder) =>
      /** @type {string[]} */ (readdirSync(path.join(root, folder), { recursive: true }))
        .filter((name) => /\.[ch]$/.test(name))
        .map((name) => path.join(folder, name)),
    );
}

/** @param {string} script  path of a package's script, below node_modules @param {string[]} args */
const runPackage = (script, args) =>
  run(process.execPath, [path.join(root, 'node_modules', script), ...args]);

await main(async () => {
  const write = process.argv.includes('--write');
  await buildBundles();
  const checks = [
    () =>
      runPackage('@biomejs/biome/bin/biome', ['check', ...(write ? ['--write'] : ['--error-on-warnings'])]),
    () =>
      runPackage('clang-format-node/build/cli.js', [
        ...(write ? ['-i'] : ['--dry-run', '--Werror']),
        ...cFiles(),
      ]),
    () => (write ? Promise.resolve('') : runPackage('typescript-native/bin/tsc', ['-p', '.'])),
  ];
  const results = await Promise.allSettled(checks.map((check) => check()));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  process.stdout.write(write ? 'formatted\n' : 'lint: clean\n');
});
