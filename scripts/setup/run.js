/**
 * Runs other programs, and defines the one error that set-up scripts throw. It imports only Node's
 * own modules, since it runs before node_modules exists.
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The repository's folder. */
export const root = fileURLToPath(new URL('../..', import.meta.url));

/** An error that a person can act on. It is printed as one line, without a stack. */
export class SetupError extends Error {
  /** @override */
  name = 'SetupError';
}

/** Prints progress to stderr, since stdout is for results. @param {string} text */
export const say = (text) => process.stderr.write(`[setup] ${text}\n`);

/**
 * The environment with this Node first on PATH, so that scripts that call `node` get it.
 * @returns {NodeJS.ProcessEnv}
 */
export const environment = () => ({
  ...process.env,
  PATH: [path.dirname(process.execPath), process.env.PATH ?? ''].join(path.delimiter),
});

/**
 * @param {string} name
 * @returns {string | undefined}  path of the program, if it is on PATH
 */
export function which(name) {
  const endings = process.platform === 'win32' ? ['.exe', '.cmd', '.bat', ''] : [''];
  for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
    for (const ending of endings) {
      const file = path.join(folder, name + ending);
      try {
        accessSync(file, constants.X_OK);
        if (folder && statSync(file).isFile()) return file;
      } catch {
        // not in this folder
      }
    }
  }
  return undefined;
}

/**
 * Runs a program with its output on our stderr. With `quiet`, the output is shown only if the
 * program fails.
 * @param {string} file
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, quiet?: boolean, hint?: string }} [options]
 * @returns {Promise<string>}  its output when quiet
 */
export async function run(file, args, { cwd = root, env = environment(), quiet = false, hint = '' } = {}) {
  const child = spawn(file, args, { cwd, env, stdio: ['ignore', quiet ? 'pipe' : 2, quiet ? 'pipe' : 2] });
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => (output += text));
  child.stderr?.setEncoding('utf8').on('data', (text) => (output += text));
  const status = await new Promise((resolve, reject) => {
    child.on('error', (cause) => reject(new SetupError(`cannot run ${file}: ${cause.message}`)));
    child.on('close', (code, signal) => resolve(signal ?? code));
  });
  if (status !== 0) {
    process.stderr.write(output);
    throw new SetupError(`${path.basename(file)} ${args[0] ?? ''} failed (${status})${hint && `: ${hint}`}`);
  }
  return output;
}

/**
 * @param {string} file
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {string | undefined}  trimmed stdout, undefined if it fails
 */
export function ask(file, args, env = environment()) {
  const { status, stdout } = spawnSync(file, args, { env, encoding: 'utf8', cwd: root });
  return status === 0 ? stdout.trim() : undefined;
}

/** Age in milliseconds after which a lock counts as left behind by a process that died. */
const STALE_LOCK_MS = 15 * 60_000;

/**
 * Runs `work` while no other process does, since several test files may need the same build at
 * once.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(name, work) {
  const lock = path.join(root, 'build', `${name}.lock`);
  mkdirSync(path.dirname(lock), { recursive: true });
  for (;;) {
    try {
      mkdirSync(lock);
      break;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
      const born = statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
      if (Date.now() - born > STALE_LOCK_MS) rmSync(lock, { recursive: true, force: true });
      else await sleep(200);
    }
  }
  const unlock = () => rmSync(lock, { recursive: true, force: true });
  const interrupted = () => {
    unlock();
    process.exit(130);
  };
  process.once('exit', unlock).once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    return await work();
  } finally {
    unlock();
    process.off('exit', unlock).off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
}

/**
 * Runs a command: a SetupError becomes one line and exit status 1.
 * @param {() => Promise<number | undefined | void>} work  resolves to the exit status
 */
export async function main(work) {
  try {
    process.exitCode = (await work()) ?? 0;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`error: ${error.message}\n`);
    process.exitCode = 1;
  }
}

/** @param {string} url  a script's import.meta.url */
export const isMain = (url) =>
  process.argv[1] !== undefined && fileURLToPath(url) === path.resolve(process.argv[1]);
