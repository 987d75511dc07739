/**
 * `npm run bench`: every weight type and kernel against the naive pipeline and the baseline kernel, interleaved, one
 * thread. Prints Markdown. `--help` lists the options.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { relaxedNode } from '../../scripts/setup/engines.js';
import { openModule } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';
import { enter } from './contenders.js';
import { race } from './lab.js';
import { caseTable, promises, summary } from './report.js';
import { startup } from './startup.js';

/** @import { RawModule } from '../helpers/raw.js' */
/** @import { Case } from './contenders.js' */
/** @import { Result } from './report.js' */

const HELP = `npm run bench -- [options]
  --filter REGEX   only cases whose name matches, such as 'Q4_K 4096x4096 M=1$'
  --kernels REGEX  only kernels whose name matches: 'int8 relaxed i16', 'int16 simd128', 'naive', 'baseline', ...
  --quick          one small shape, M = 1 and 8, few rounds: does it run, not how fast
  --all            scalar kernels for many tokens too (slow)
  --cold           weights rotate through more than 160 MB, so that they come from memory
  --json FILE      results as JSON
  --seconds N      time for each case (default 2)
  --layer          instead: norm + matmuls, feed-forward block, attention, against their unfused sequences
  --startup        instead: time from createKernels() to the first result, in fresh processes
  --list           the cases, without running them
  --help`;

const OPTIONS = /** @type {const} */ ({
  filter: { type: 'string', default: '' },
  kernels: { type: 'string', default: '' },
  quick: { type: 'boolean', default: false },
  all: { type: 'boolean', default: false },
  cold: { type: 'boolean', default: false },
  json: { type: 'string' },
  seconds: { type: 'string', default: '2' },
  layer: { type: 'boolean', default: false },
  startup: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
});

/** The square shape of the promises, and the down projection of TinyLlama 1.1B. */
const SHAPES = [
  [4096, 4096],
  [2048, 5632],
];
const QUICK_SHAPES = [[512, 1024]];

/** @param {Case} c */
const caseName = ({ type, nRows, nCols, nTokens }) => `${type.name} ${nRows}x${nCols} M=${nTokens}`;

/** @param {RawModule} module @param {{ quick: boolean, filter: string }} options @returns {Case[]} */
function cases(module, { quick, filter }) {
  const pattern = new RegExp(filter);
  const known = module.types.flatMap(({ id }) => referenceById.get(id) ?? []);
  /* Q4_K first: the others are compared with it. */
  const types = known.sort((a, b) => Number(b.name === 'Q4_K') - Number(a.name === 'Q4_K'));
  const shapes = quick ? QUICK_SHAPES : SHAPES;
  const tokens = quick ? [1, 8] : [1, 8, 32, 128];
  const all = types.flatMap((type) =>
    shapes.flatMap(([nRows, nCols]) => tokens.map((nTokens) => ({ type, nRows, nCols, nTokens }))),
  );
  return all.filter((made) => pattern.test(caseName(made)));
}

/** The best module this engine takes. @returns {RawModule} */
function bestModule() {
  for (const name of ['relaxed', 'simd128', 'scalar']) {
    const { module } = openModule(name);
    if (module) return module;
  }
  throw new Error('this engine takes none of the modules');
}

/** Runs this program under a Node with relaxed SIMD. @returns {Promise<boolean>} false when there is none */
async function runElsewhere() {
  if (!openModule('relaxed').reason || process.env.FM_BENCH_CHILD) return false;
  try {
    const node = await relaxedNode();
    console.error(`Node ${process.version} has no relaxed SIMD: running under ${node}`);
    const env = { ...process.env, FM_BENCH_CHILD: '1' };
    const { status } = spawnSync(node, process.argv.slice(1), { stdio: 'inherit', env });
    process.exitCode = status ?? 1;
    return true;
  } catch (error) {
    console.error(
      `no Node with relaxed SIMD (${/** @type {Error} */ (error).message}): simd128 is the best here`,
    );
    return false;
  }
}

function environment() {
  const cpus = os.cpus();
  return {
    machine: `${cpus[0]?.model.trim() ?? 'unknown processor'}, ${cpus.length} threads, ${process.platform} ${process.arch}`,
    engine: `Node ${process.versions.node} (V8 ${process.versions.v8}), one thread`,
    command: ['npm run bench --', ...process.argv.slice(2)].join(' ').replace(/ --$/, ''),
    date: new Date().toISOString().slice(0, 10),
  };
}

/** The programs of the fused operations, one after the other. @param {{ seconds: string, cold: boolean }} options */
function layer({ seconds, cold }) {
  const { machine, engine, date } = environment();
  console.log(`${machine}; ${engine}; ${date}\n`);
  for (const [program, ...more] of [['fused.js'], ['attention.js', ...(cold ? ['--cold'] : [])]]) {
    const args = [fileURLToPath(new URL(program, import.meta.url)), '--seconds', seconds, ...more];
    const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
    if (status !== 0) throw new Error(`${program} ended with ${status}`);
  }
}

async function bench() {
  const { values: options } = parseArgs({ options: OPTIONS });
  if (options.help) return console.log(HELP);
  if (await runElsewhere()) return;
  if (options.startup) return console.log(startup(15));
  if (options.layer) return layer(options);
  const module = bestModule();
  const selected = cases(module, options);
  if (options.list) return console.log(selected.map(caseName).join('\n'));
  if (selected.length === 0) throw new Error(`no case matches ${options.filter}`);

  const setting = environment();
  console.log(`${setting.machine}; ${setting.engine}; ${setting.date}; \`${setting.command}\``);
  console.log(`M: tokens. Times are medians${options.cold ? ', weights from memory (cold)' : ''}.\n`);
  const budgetMs = (options.quick ? 0.2 : Number(options.seconds)) * 1000;
  const limits = options.quick
    ? { minRounds: 3, maxRounds: 10, budgetMs }
    : { minRounds: 7, maxRounds: 200, budgetMs };
  /** @type {Result[]} */
  const results = [];
  for (const made of selected) {
    const { type, nRows, nCols, nTokens } = made;
    const entered = enter(module, made, { ...options, kernels: new RegExp(options.kernels) });
    const found = race(entered.contenders, limits).map(({ name, ...timing }) => ({
      type: type.name,
      nRows,
      nCols,
      nTokens,
      kernel: name,
      ...timing,
      gflops: (2 * nTokens * nRows * nCols) / timing.medianMs / 1e6,
      gbps: entered.weightBytes / timing.medianMs / 1e6,
      error: entered.errors.get(name) ?? Number.NaN,
    }));
    entered.free();
    results.push(...found);
    console.log(`#### ${caseName(made)}\n\n${caseTable(found)}\n`);
  }
  console.log(`${summary(results)}\n\n${promises(results)}`);
  if (options.json)
    writeFileSync(options.json, `${JSON.stringify({ ...setting, cold: options.cold, results }, null, 2)}\n`);
}

await bench();
