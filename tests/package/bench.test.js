/**
 * The benchmark runs, covers every type that the modules serve, and checks results before it times
 * them. Speed itself is not tested.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import createWabt from 'wabt';
import { enter } from '../bench/contenders.js';
import { checkResult, makeData } from '../bench/data.js';
import { fitLine, linesOf } from '../bench/growth.js';
import { race } from '../bench/lab.js';
import { promptOf } from '../bench/large-llama.js';
import { checkAgreement } from '../bench/llama.js';
import { readResults } from '../bench/records.js';
import { verdict } from '../bench/verdict.js';
import { freshModule, openModule } from '../helpers/raw.js';
import { referenceById, referenceByName } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';

const benchWasm = (/** @type {string} */ name) => join(projectRoot, `build/wasm/bench-${name}.wasm`);

/** @param {string[]} args @returns {string} stdout, from this Node and no other */
function bench(args) {
  const env = { ...process.env, FM_BENCH_CHILD: '1' };
  const script = join(projectRoot, 'tests/bench/bench.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], {
    encoding: 'utf8',
    env,
  });
  assert.equal(status, 0, stderr);
  return stdout;
}

test('bench: a case for every type', () => {
  const listed = bench(['--list']);
  for (const { id } of openModule('scalar').module?.types ?? assert.fail('no scalar module')) {
    const name = referenceById.get(id)?.name;
    assert.ok(name, `reference.js has no type ${id}`);
    for (const suffix of ['M=1', 'M=1 cold', 'M=8', 'M=32', 'M=128', 'M=512']) {
      assert.match(listed, new RegExp(`^${name} 4096x4096 ${suffix}$`, 'm'));
    }
  }
});

test('bench: results are checked, and the table and the JSON hold them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fm-bench-'));
  try {
    const file = join(folder, 'results.jsonl');
    const printed = bench(['--quick', '--filter', '^Q4_K .* M=1$', '--json', file]);
    assert.match(printed, /\| int16 simd128 +\|/);
    bench(['--quick', '--filter', '^Q6_K .* M=1$', '--json', file]);
    const { results, command, engine, machine } = readResults(file) ?? assert.fail('no results');
    for (const fact of [command, engine, machine]) assert.ok(fact.length > 0);
    for (const type of ['Q4_K', 'Q6_K']) {
      const kernels = results.flatMap((r) => (r.type === type ? [r.kernel] : []));
      for (const kernel of ['int16 simd128', 'f32 simd128', 'int8 scalar', 'naive'])
        assert.ok(kernels.includes(kernel), `${type} ${kernel}`);
      assert.equal(kernels.includes('baseline'), existsSync(benchWasm('baseline')));
    }
    for (const { kernel, error, medianMs, minMs, samples } of results) {
      assert.ok(minMs > 0 && minMs <= medianMs && samples >= 3, kernel);
      if (kernel.startsWith('limit') || kernel.startsWith('Q4_K')) continue;
      const bound = kernel.startsWith('int8') || kernel === 'baseline' ? 0.02 : 1e-4;
      assert.ok(error !== undefined && error <= bound, `${kernel}: ${error}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const made = {
  type: referenceByName.get('Q4_K') ?? assert.fail(),
  nRows: 40,
  nCols: 256,
  nTokens: 3,
};
const options = { kernels: /int16 simd128/, all: false };

/**
 * A module in which fused_matmul is replaced.
 * @param {(real: Function, args: number[]) => number} multiply
 */
function spoiled(multiply) {
  const module = freshModule('simd128');
  const real = module.exports.fused_matmul;
  const exports = {
    ...module.exports,
    fused_matmul: (/** @type {number[]} */ ...args) => multiply(real, args),
  };
  return Object.create(module, { exports: { value: exports } });
}

test('bench: a contender that is right enters', () => {
  const { contenders, free } = enter(
    spoiled((real, args) => real(...args)),
    made,
    options,
  );
  assert.deepEqual(
    contenders.map(({ name }) => name),
    ['int16 simd128'],
  );
  free();
});

for (const [what, multiply] of /** @type {[string, (real: Function, args: number[]) => number][]} */ ([
  ['does nothing', () => 0],
  ['fails', () => 2],
  ['leaves out the last row', (real, [a, w, x, y, m, n, ...rest]) => real(a, w, x, y, m, n - 1, ...rest)],
  ['leaves out the last token', (real, [a, w, x, y, m, ...rest]) => real(a, w, x, y, m - 1, ...rest)],
])) {
  test(`bench: a contender that ${what} is refused`, () => {
    assert.throws(() => enter(spoiled(multiply), made, options), /int16 simd128|status/);
  });
}

test('bench: every output is compared', () => {
  const { expected } = makeData(made);
  const y = Float32Array.from(expected);
  assert.ok(checkResult('right', 'f32', y, expected) < 1e-6);
  y[y.length - 1] *= 1.5;
  assert.throws(() => checkResult('wrong', 'int16', y, expected), /wrong is wrong: error/);
  assert.throws(() => checkResult('short', 'int8', y.subarray(1), expected), /119 outputs, 120 expected/);
});

test('bench: contenders take turns, and promises are waited for', async () => {
  let running = 0;
  const order = /** @type {string[]} */ ([]);
  const contender = (/** @type {string} */ name) => ({
    name,
    run: async () => {
      assert.equal(++running, 1, 'two at once');
      order.push(name);
      await new Promise((resolve) => setTimeout(resolve, 4));
      running--;
    },
  });
  const limits = { minRounds: 3, maxRounds: 3, budgetMs: 0 };
  const timings = await race([contender('a'), contender('b')], limits);
  assert.equal(order.slice(-6).join(''), 'abbaab');
  for (const { samples, minMs, medianMs } of timings)
    assert.ok(samples === 3 && minMs >= 3 && medianMs >= minMs);
});

test('bench: the verdict says NO where a promise is not met', () => {
  const race = (/** @type {number} */ own) =>
    [
      { kernel: 'int16 simd128', medianMs: own },
      { kernel: 'baseline', medianMs: 3 },
    ].map((r) => ({
      ...r,
      section: 'product',
      case: 'Q4_K 4096x4096 M=1',
      flops: 1,
      bytes: 1,
      minMs: r.medianMs,
      samples: 3,
    }));
  assert.deepEqual(
    [1.4, 1.6].map((own) => verdict(race(own)).map(({ met }) => met)),
    [[true], [false]],
  );
});

test('bench: a line is fitted, and the point farthest from it found', () => {
  const points = [1, 2, 4, 8].map((work) => ({ work, ms: 3 + 0.5 * work }));
  const line = fitLine(points);
  assert.ok(Math.abs(line.a - 3) < 1e-9 && Math.abs(line.b - 0.5) < 1e-9 && line.worst < 1e-9);
  points[2].ms *= 1.3;
  const bent = fitLine(points);
  assert.ok(bent.worst > 0.1 && bent.worstAt === 2);
  const results = points.map(({ work, ms }) => ({
    ...{ section: 'growth', case: 'growth N: x', kernel: 'k', curve: 'k', at: 10 * work },
    ...{ medianMs: ms, minMs: ms, samples: 3, flops: work, bytes: 0 },
  }));
  const [{ worstAt, name }] = linesOf(results);
  assert.deepEqual([worstAt, name], [40, 'growth N: x, k']);
  assert.deepEqual(
    verdict(results).map(({ met }) => met),
    [false],
  );
});

test('bench: engines that disagree on the next token are found out', () => {
  const likely = [1, 2, 3].map((id) => ({ id, logProbability: -id }));
  const same = { ours: likely, wllama: [likely[1], likely[0], likely[2]] };
  assert.doesNotThrow(() => checkAgreement(same));
  const stranger = [{ id: 9, logProbability: -1 }];
  assert.throws(() => checkAgreement({ ours: likely, wllama: stranger }), /disagree/);
  assert.throws(() => checkAgreement({ ours: stranger, wllama: likely }), /disagree/);
  const surer = likely.map(({ id, logProbability }) => ({ id, logProbability: logProbability - 3 }));
  assert.throws(() => checkAgreement({ ours: surer, wllama: likely }), /disagree/);
});

test('bench: prompts have the length asked for, and differ', () => {
  const words = promptOf(128, 1).split(' ');
  assert.equal(words.length, 127);
  assert.ok(words.every((word) => /^[a-m]{3}$/.test(word)));
  assert.notEqual(promptOf(128, 1), promptOf(128, 2));
});

test('bench: the loops of the limits hold their instructions, twelve each', async (t) => {
  if (!existsSync(benchWasm('limits'))) return t.skip('the bench modules are not built');
  const { readWasm } = await createWabt();
  const instructions = /** @type {Record<string, string>} */ ({
    limit_dot_i16x8: 'i32x4.dot_i16x8_s',
    limit_dot_i16x8_add: 'i32x4.dot_i16x8_s',
    limit_f32_mul_add: 'f32x4.mul',
    limit_relaxed_i16: 'i16x8.relaxed_dot_i8x16_i7x16_s',
    limit_relaxed_i16_add: 'i16x8.relaxed_dot_i8x16_i7x16_s',
    limit_relaxed_i32: 'i32x4.relaxed_dot_i8x16_i7x16_add_s',
    limit_relaxed_madd: 'f32x4.relaxed_madd',
  });
  for (const name of ['baseline', 'limits']) {
    const module = readWasm(new Uint8Array(readFileSync(benchWasm(name))), {
      readDebugNames: true,
      relaxed_simd: true,
    });
    const text = module.toText({ foldExprs: false, inlineExport: true });
    for (const [limit, instruction] of Object.entries(instructions)) {
      const start = text.indexOf(`(export "${limit}")`);
      if (start < 0) continue;
      delete instructions[limit];
      const body = text.slice(start, text.indexOf('(func', start));
      const loop = body.slice(body.indexOf('loop'), body.lastIndexOf('br_if'));
      assert.equal(loop.split(instruction).length - 1, 12, `${limit}: ${instruction}`);
    }
  }
  assert.deepEqual(instructions, {}, 'limits that no module has');
});
