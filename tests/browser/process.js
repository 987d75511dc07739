/** A browser as a process group of its own, which is ended whole: when it is asked to, and when this process ends. */
import { spawn } from 'node:child_process';

/** To end when it is asked to. */
const CLOSE_MS = 10_000;

/** @type {Set<() => void>} */
const running = new Set();
const endAll = () => {
  for (const kill of running) kill();
};
process.on('exit', endAll);
process.on('SIGTERM', () => process.exit(143)); // the test runner's, when a file takes too long

/** @typedef {ReturnType<typeof startBrowser>} Browser */

/**
 * @param {string[]} command
 * @param {string} folder  for what it leaves lying about
 * @param {NodeJS.ProcessEnv} [environment]  besides this process's
 */
export function startBrowser([file, ...args], folder, environment) {
  const child = spawn(file, args, {
    detached: true, // a group of its own
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, TMPDIR: folder, ...environment },
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (said = (said + text).slice(-4000)));
  /** @param {NodeJS.Signals} signal */
  const stop = (signal) => {
    try {
      if (child.pid) process.kill(-child.pid, signal);
    } catch {
      // it has ended by itself
    }
  };
  const kill = () => stop('SIGKILL');
  running.add(kill);
  /** @type {Promise<void>} */
  const ended = new Promise((resolve) => child.on('close', () => resolve()).on('error', () => resolve()));
  return {
    pid: child.pid ?? 0,
    ended,
    /** The last of what it wrote to stderr. */
    said: () => said,
    /** @returns {Promise<boolean>}  whether it ended when it was asked to, and so could keep what it had */
    async close() {
      stop('SIGTERM');
      let isSlow = false;
      const slow = setTimeout(() => {
        isSlow = true;
        kill();
      }, CLOSE_MS);
      await ended;
      clearTimeout(slow);
      kill(); // what is left of the group
      running.delete(kill);
      return !isSlow;
    },
  };
}
