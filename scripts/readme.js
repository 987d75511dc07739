/**
 * Generates parts of the documents: the summary of README.md, the support matrix of js/README.md
 * (from the kernel table of the built modules), and the tables and sizes of tests/bench/RESULTS.md.
 * `node scripts/readme.js` writes them; tests/package/readme.test.js checks that they are current.
 *
 * The matrix needs an engine with relaxed SIMD. In another engine, the script runs itself in one
 * that has it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { numbers, summaryNumbers } from '../tests/bench/numbers.js';
import { markdown } from '../tests/bench/report.js';
import { build, sizes } from './build.js';
import { ask, isMain, main, root, SetupError } from './setup/run.js';
import { relaxedNode } from './setup.js';

export const README = path.join(root, 'README.md');
export const GUIDE = path.join(root, 'js/README.md');
export const RESULTS = path.join(root, 'tests/bench/RESULTS.md');
const ACTIVATIONS = /** @type {const} */ (['f32', 'int16', 'int8']);

/**
 * Types with 8-bit codes: relaxed int8 if this engine's i32 relaxed dot product is exact for them
 * (fm_wide_dot in src/kernels/wide_dot.h), else int16. The table must not depend on the machine on
 * which it is made.
 */
const WIDE_TYPES = new Set(['Q8_0', 'Q8_K', 'IQ4_NL', 'IQ4_XS']);
const WIDE_SERVICES = ['relaxed int8', 'simd128 int16'];

/** The matrix, computed in this engine, which must have relaxed SIMD. @returns {Promise<string>} */
async function supportMatrixHere() {
  const { createKernels } = await import('../js/index.js');
  const relaxed = await createKernels({ isa: 'relaxed' });
  const simd128 = await createKernels({ isa: 'simd128' });
  const scalar = await createKernels({ isa: 'scalar' });
  const rows = relaxed.types.map(({ name, id, blockValues, blockBytes }) => {
    const by = (/** @type {typeof relaxed} */ fm) =>
      ACTIVATIONS.map((activation) => {
        const served = fm.servedBy(name, activation);
        const cell = `${served.isa} ${served.activation}`;
        const isWide = fm === relaxed && activation === 'int8' && WIDE_TYPES.has(name);
        return isWide && WIDE_SERVICES.includes(cell) ? 'relaxed int8 (*)' : cell;
      });
    const bits = (8 * blockBytes) / blockValues;
    const cells = [name, `${id}`, `${blockValues}`, `${blockBytes}`, `${Number(bits.toFixed(4))}`];
    return [...cells, ...by(relaxed), by(simd128)[2], by(scalar)[2]];
  });
  const heads = ['type', 'id', 'values a block', 'bytes a block', 'bits a weight', 'f32', 'int16', 'int8'];
  return markdown([[...heads, 'int8 without relaxed SIMD', 'int8 without SIMD'], ...rows]);
}

/** @returns {Promise<string>}  Markdown */
export async function supportMatrix() {
  const node = await relaxedNode();
  const matrix = ask(node, [fileURLToPath(import.meta.url), '--print-matrix']);
  if (!matrix)
    throw new SetupError('the support matrix could not be made: see node scripts/readme.js --print-matrix');
  return matrix;
}

/** @returns {string}  Markdown */
export function sizeTable() {
  const kilobytes = (/** @type {number} */ bytes) => `${(bytes / 1024).toFixed(1)} KB`;
  const rows = sizes().map(({ name, bytes, gzipped, budget }) => [
    `\`dist/${name}\``,
    kilobytes(bytes),
    kilobytes(gzipped),
    budget ? `${budget / 1024} KB` : '-',
  ]);
  return markdown([['file', 'bytes', 'gzipped', 'budget'], ...rows]);
}

const marks = (/** @type {string} */ name) => [
  `<!-- ${name}: made by scripts/readme.js -->\n`,
  `\n<!-- end of ${name} -->`,
];

/**
 * @param {string} text
 * @param {string} name
 * @returns {[number, number]}  start and end of the text between the marks
 */
function place(text, name) {
  const [open, close] = marks(name);
  const start = text.indexOf(open) + open.length;
  const end = text.indexOf(close, start);
  if (start < open.length || end < 0)
    throw new SetupError(`the document has no place for ${name}: ${open.trim()} ...${close}`);
  return [start, end];
}

/** @param {string} text @param {string} name */
export const section = (text, name) => text.slice(...place(text, name));

async function writeSections() {
  await build({ quiet: true });
  /** @type {[string, string, string | undefined][]} */
  const sections = [
    [README, 'summary', summaryNumbers()],
    [GUIDE, 'support matrix', await supportMatrix()],
    [RESULTS, 'numbers', numbers()],
    [RESULTS, 'sizes', sizeTable()],
  ];
  for (const [file, name, table] of sections) {
    if (table === undefined) continue;
    const text = readFileSync(file, 'utf8');
    const [start, end] = place(text, name);
    writeFileSync(file, text.slice(0, start) + table + text.slice(end));
  }
}

if (isMain(import.meta.url)) {
  await main(async () => {
    if (process.argv.includes('--print-matrix')) process.stdout.write(await supportMatrixHere());
    else await writeSections();
  });
}
