/**
 * The packages that only the benchmark needs: the engines to compare with, and the chart library.
 * They have 170 MB, so `npm ci` does not install them. They are installed from npm on first use, in
 * these versions, into build/peers.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { npmCommand } from '../../scripts/setup/packages.js';
import { root, run, say, withLock } from '../../scripts/setup/run.js';

export const PEERS = Object.freeze({
  '@wllama/wllama': '3.13.0',
  'onnxruntime-web': '1.30.0',
  protobufjs: '7.6.6', // writes the ONNX model; this is the version that onnxruntime-web uses
  vega: '6.4.0',
  'vega-lite': '6.5.0',
});

export const PEERS_FOLDER = join(root, 'build/peers');

/** @typedef {keyof typeof PEERS} PeerName */

/** @param {PeerName} name */
function isInstalled(name) {
  const file = join(PEERS_FOLDER, 'node_modules', name, 'package.json');
  return existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).version === PEERS[name];
}

/** @returns {Promise<string>} the folder whose node_modules contains them */
export async function ensurePeers() {
  const missing = () => /** @type {PeerName[]} */ (Object.keys(PEERS)).filter((name) => !isInstalled(name));
  if (missing().length === 0) return PEERS_FOLDER;
  await withLock('peers', async () => {
    if (missing().length === 0) return;
    const wanted = Object.entries(PEERS).map(([name, version]) => `${name}@${version}`);
    say(`installing ${wanted.join(', ')} into build/peers`);
    mkdirSync(PEERS_FOLDER, { recursive: true });
    writeFileSync(join(PEERS_FOLDER, 'package.json'), '{ "private": true }\n');
    const [file, args] = npmCommand();
    const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
    const install = ['install', ...quiet, '--prefix', PEERS_FOLDER, ...wanted];
    await run(file, [...args, ...install], { quiet: true, hint: 'is the npm registry reachable?' });
  });
  return PEERS_FOLDER;
}

/** Requires a CommonJS package of the peers. @param {string} name @returns {any} */
export const requirePeer = (name) => createRequire(join(PEERS_FOLDER, 'package.json'))(name);
