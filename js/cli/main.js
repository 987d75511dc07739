#!/usr/bin/env node
/* The command fused-matmul. Exit codes: 0 done, 1 failed, 2 called wrongly, 130 ended by Ctrl-C. */

import { ArgumentError, FmError } from '../errors.js';
import { VERSION } from '../wasm/loader.js';
import { bench } from './bench.js';
import { chat } from './chat.js';
import { embed } from './embed.js';
import { generate } from './generate.js';
import { inspect } from './inspect.js';
import { asTyped, helpText, readArguments, UsageError } from './options.js';
import { serve } from './serve.js';

const COMMANDS = [generate, chat, embed, serve, inspect, bench];

const OVERVIEW = `usage: fused-matmul COMMAND MODEL.gguf [options]

Runs quantised language models on WebAssembly kernels. MODEL is a path, an http(s) address, or a
link to a file on Hugging Face (its page, or hf:OWNER/REPO/FILE.gguf). For a model that is split into
parts it is the first, NAME-00001-of-00005.gguf, or the folder that holds them.

${COMMANDS.map(({ name, summary }) => `  ${name.padEnd(10)}${summary.split('. ')[0].replace(/\.$/, '')}`).join('\n')}

fused-matmul COMMAND --help tells more; fused-matmul --version the version.
`;

/** @param {string[]} args @param {import('./output.js').Io} io */
async function run([name, ...rest], io) {
  if (name === '--version') io.stdout.write(`${VERSION}\n`);
  else if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    io.stdout.write(OVERVIEW);
    if (name === undefined) throw new UsageError('a command is missing');
  } else {
    const command = COMMANDS.find((one) => one.name === name);
    if (!command) {
      throw new UsageError(
        `there is no command "${name}"; commands are ${COMMANDS.map((one) => one.name).join(', ')}`,
      );
    }
    const { values, args } = readArguments(command, rest);
    if (values.help) io.stdout.write(helpText(command));
    else await runCommand(command, values, args, io);
  }
}

/**
 * @param {import('./options.js').Command} command
 * @param {Parameters<import('./options.js').Command['run']>} args
 */
async function runCommand(command, ...args) {
  try {
    await command.run(...args);
  } catch (error) {
    if (error instanceof ArgumentError) error.message = asTyped(error.message, command.options);
    throw error;
  }
}

/** @param {unknown} error @returns {number} */
function exitCode(error) {
  const one = /** @type {Error} */ (error);
  process.stderr.write(`fused-matmul: ${String(one?.message ?? error).replace(/\s*\n\s*/g, ' ')}\n`);
  if (error instanceof UsageError || error instanceof ArgumentError) return 2;
  // An error of another class is a mistake in the library, so print where it happened.
  if (!(error instanceof FmError) && !(error instanceof RangeError) && one?.stack)
    process.stderr.write(`${one.stack}\n`);
  return 1;
}

const interrupt = new AbortController();
process.once('SIGINT', () => interrupt.abort());
// EPIPE: the reader of the pipe has ended (| head).
process.stdout.on('error', (/** @type {NodeJS.ErrnoException} */ error) =>
  process.exit(error.code === 'EPIPE' ? 0 : 1),
);

try {
  const { stdout, stderr, stdin } = process;
  await run(process.argv.slice(2), { stdout, stderr, stdin, signal: interrupt.signal });
} catch (error) {
  process.exitCode = interrupt.signal.aborted ? 130 : exitCode(error);
}
