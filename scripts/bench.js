/** `npm run bench`: sets up, builds, and runs tests/bench/bench.js with the same arguments. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { build } from './build.js';
import { environment, main, root } from './setup/run.js';

await main(async () => {
  await build({ quiet: true });
  const script = path.join(root, 'tests/bench/bench.js');
  const child = spawn(process.execPath, [script, ...process.argv.slice(2)], {
    env: environment(),
    stdio: 'inherit',
  });
  return new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)));
});
