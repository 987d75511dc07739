/**
 * Machine code of the GPU kernels for one family of AMD GPUs, without a GPU: Mesa's RADV compiles,
 * a small libvulkan stands in for the device. `node tests/gpu/isa/count.js --write` stores the
 * counts, `--asm NAME` prints a kernel's code.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ensureMesa } from '../../../scripts/setup/mesa.js';
import { ask, isMain, root, which } from '../../../scripts/setup/run.js';

/** RDNA 3. */
export const FAMILY = 'navi31';
const here = path.join(root, 'tests/gpu/isa');
/** The counts that are expected. */
export const COUNTS = path.join(here, 'counts.json');

/**
 * The largest loop of a kernel, and what the whole takes.
 * @typedef {object} Count
 * @property {number} instructions  of the whole kernel
 * @property {number} loop  of its largest loop
 * @property {number} loads  from memory in that loop
 * @property {number} fma  multiply-adds in that loop
 * @property {number} registers  vector registers
 * @property {number} spilled  vector registers that went to memory
 */

/**
 * @param {string} [only] the name of a shader
 * @returns {Promise<{ text: Record<string, string>, driver: string } | { skip: string }>} what the
 *   driver, of that version, printed by shader
 */
export async function machineCode(only) {
  const mesa = await ensureMesa();
  if (typeof mesa === 'string') return { skip: mesa };
  const compiler = ['cc', 'clang', 'gcc'].map(which).find(Boolean);
  if (!compiler) return { skip: 'no C compiler for the stand-in of a GPU' };
  const folder = path.join(root, 'build/gpu-isa');
  const library = path.join(folder, 'libvulkan.so.1');
  mkdirSync(folder, { recursive: true });
  const source = path.join(here, 'null-device.c');
  const flags = ['-O2', '-shared', '-fPIC', '-fvisibility=hidden', source, '-o', library, '-ldl'];
  if (ask(compiler, flags) === undefined)
    return { skip: `${compiler} does not compile the stand-in of a GPU` };
  // A pipe would be full at times, which the driver does not wait for.
  const file = path.join(folder, `${process.pid}.txt`);
  const output = openSync(file, 'w');
  const { status } = spawnSync(process.execPath, [path.join(here, 'compile.js'), ...(only ? [only] : [])], {
    stdio: ['ignore', 'ignore', output],
    env: {
      ...process.env,
      LD_LIBRARY_PATH: `${folder}:${mesa.libraries}`,
      FM_VULKAN_LOADER: path.join(mesa.libraries, 'libvulkan.so.1'),
      VK_ICD_FILENAMES: mesa.radv,
      RADV_FORCE_FAMILY: FAMILY,
      RADV_DEBUG: 'shaderstats,asm,nocache',
    },
  });
  closeSync(output);
  const said = readFileSync(file, 'utf8');
  rmSync(file);
  const parts = said.split(/^=== (.*)$/m);
  if (status !== 0 || !parts.includes('end'))
    throw new Error(`compiling failed (${status}): ${said.slice(-2000)}`);
  const text = Object.fromEntries(
    parts.slice(1).flatMap((name, i) => (i % 2 === 0 && name !== 'end' ? [[name, parts[i + 2]]] : [])),
  );
  const { driver, ...kernels } = text;
  return { text: kernels, driver: driver.trim() };
}

/** @param {string} text  assembly and statistics of one kernel @returns {Count} */
export function countLoop(text) {
  const lines = text.split('\n');
  /** @type {Map<string, number>} */
  const labels = new Map();
  let [begin, end] = [0, -1];
  for (const [i, line] of lines.entries()) {
    const [, label] = /^(BB\d+):/.exec(line) ?? [];
    if (label) labels.set(label, i);
    const [, target] = /\bs_c?branch\S*\s+(BB\d+)/.exec(line) ?? [];
    const from = labels.get(target ?? '');
    if (from !== undefined && i - from > end - begin) [begin, end] = [from, i];
  }
  const operations = lines.slice(begin, end + 1).flatMap((line) => /^\s+([a-z]\w+)/.exec(line)?.[1] ?? []);
  const matching = (/** @type {RegExp} */ what) => operations.filter((name) => what.test(name)).length;
  const stat = (/** @type {string} */ name) =>
    Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);
  return {
    instructions: stat('Instructions'),
    loop: operations.length,
    loads: matching(/^(buffer|global)_load/),
    fma: matching(/^v_(dual_)?(fma|pk_fma|dot)/),
    registers: stat('VGPRs'),
    spilled: stat('Spilled VGPRs'),
  };
}

/**
 * The driver that has compiled, and the counts by shader.
 * @typedef {{ driver: string, counts: Record<string, Count> }} Counts
 */

/** Numbers of a line of the file; no kernel there has spilled. */
const COLUMNS = /** @type {const} */ (['instructions', 'loop', 'loads', 'fma', 'registers']);

/** @returns {Counts} */
export function expectedCounts() {
  const { driver, counts } = JSON.parse(readFileSync(COUNTS, 'utf8'));
  const named = Object.entries(counts).map(([name, numbers]) => [
    name,
    { ...Object.fromEntries(COLUMNS.map((column, i) => [column, numbers[i]])), spilled: 0 },
  ]);
  return { driver, counts: Object.fromEntries(named) };
}

/** @param {Counts} counts  @returns {string}  a line a kernel */
function linesOf({ driver, counts }) {
  const lines = Object.entries(counts).map(
    ([name, count]) => `    ${JSON.stringify(name)}: [${COLUMNS.map((column) => count[column]).join(', ')}]`,
  );
  const columns = COLUMNS.map((column) => `"${column}"`).join(', ');
  return `{
  "driver": ${JSON.stringify(driver)},
  "columns": [${columns}],
  "counts": {
${lines.join(',\n')}
  }
}
`;
}

if (isMain(import.meta.url)) {
  const [option, name] = process.argv.slice(2);
  const found = await machineCode(option === '--asm' ? name : undefined);
  if ('skip' in found) throw new Error(found.skip);
  const { text, driver } = found;
  if (option === '--asm') process.stdout.write(text[name]);
  else {
    const counts = Object.fromEntries(
      Object.entries(text).map(([shader, code]) => [shader, countLoop(code)]),
    );
    for (const [shader, { spilled }] of Object.entries(counts))
      if (spilled > 0) process.stderr.write(`${shader}: ${spilled} registers go to memory\n`);
    const lines = linesOf({ driver, counts });
    if (option === '--write') writeFileSync(COUNTS, lines);
    else process.stdout.write(lines);
  }
}
