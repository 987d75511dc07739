/** The report at the end of `npm test`, which joins several runs, and the options of `npm test`. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { reporter } from '../../scripts/reporter.js';
import { root } from '../../scripts/setup/run.js';

/** @param {string} message */
const says = (message) => ({ type: 'test:diagnostic', data: { nesting: 0, message } });

/** @param {'pass' | 'fail'} how @param {string} file @param {string} name @param {object} [more] */
const ends = (how, file, name, more) => ({
  type: `test:${how}`,
  data: {
    ...{ nesting: 0, name, testNumber: 1, file: path.join(root, 'tests', file) },
    ...{
      details: { duration_ms: 1500, error: new Error('it is wrong', { cause: new Error('it is wrong') }) },
    },
    ...more,
  },
});

/** A run of node's test runner. @param {any[]} events @param {Record<string, number>} summary */
const runOf = (events, summary) =>
  async function* () {
    yield* events;
    for (const [what, number] of Object.entries(summary)) yield says(`${what} ${number}`);
  };

const first = runOf(
  [
    ends('pass', 'kernels.test.js', 'kernels: scalar module, scalar'),
    ends('pass', 'isa.test.js', 'inner', { nesting: 1 }),
    says('ran: Chromium 1.2 in a page'),
    ends('pass', 'fuzz/fuzz.test.js', 'fuzz: a short run', { skip: 'no Clang' }),
    ends('pass', 'isa.test.js', 'isa: relaxed'),
  ],
  { tests: 4, pass: 3, fail: 0, skipped: 1, duration_ms: 10.5 },
);
const second = runOf([ends('fail', 'worker.test.js', 'a worker')], {
  ...{ tests: 1, pass: 0, fail: 1, skipped: 0, duration_ms: 2 },
});

/** @param {Parameters<typeof reporter>[0]} runs */
async function reported(runs) {
  const { report, output } = reporter(runs);
  let text = '';
  for await (const piece of output) text += piece;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the colours of a terminal
  return { report, text: text.replace(/\u001b\[\d+m/g, '') };
}

test('reporter: runs are one: what ran, what was skipped and why, what took longest, one summary', async () => {
  const { report, text } = await reported([first, second]);
  assert.deepEqual(
    [report.passed.length, report.skipped.length, report.failed.map(({ name }) => name)],
    [3, 1, ['a worker']],
  );
  assert.match(text, /scalar C +yes {2}Node/);
  assert.match(text, /a browser +yes {2}Chromium 1\.2/);
  assert.match(text, /workers +FAILED {2}1 of 1 tests/);
  assert.match(text, /fuzzing, a short run +NO {3}no Clang/);
  assert.match(text, /what took longest: .*kernels 2 s,/);
  assert.match(
    text,
    /what was skipped, and why \(1 tests\):\n.* no Clang\n.*fuzz\.test\.js: fuzz: a short run/,
  );
  const summary = text.slice(text.lastIndexOf('ℹ tests'));
  assert.match(summary, /^ℹ tests 5\nℹ pass 3\nℹ fail 1\nℹ skipped 1\nℹ duration_ms 12\.5\n/);
  assert.equal(text.match(/ℹ tests \d/g)?.length, 1);
  assert.match(summary, /failing tests:[\s\S]*a worker[\s\S]*it is wrong/);
});

test('reporter: the second run begins when the first has ended', async () => {
  /** @type {string[]} */
  const order = [];
  const noting = (/** @type {string} */ name) =>
    async function* () {
      order.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      yield says('tests 1');
      order.push(`${name} ends`);
    };
  await reported([noting('a'), noting('b')]);
  assert.deepEqual(order, ['a begins', 'a ends', 'b begins', 'b ends']);
});

/** @param {string[]} args */
function npmTest(...args) {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return spawnSync(process.execPath, ['scripts/test.js', ...args], { cwd: root, env, encoding: 'utf8' });
}

test('npm test: what it does not know is an error before anything is built', () => {
  for (const [args, status, message] of /** @type {[string[], number, RegExp][]} */ ([
    [['--help'], 0, /--test-name-pattern/],
    [['--test-shard=1/2'], 1, /^error: Unknown option '--test-shard'/],
    [['--test-concurrency', '0'], 1, /^error: --test-concurrency must be 1 or more, got 0/],
    [['--test-timeout', '1s'], 1, /^error: --test-timeout must be 1 or more, got 1s/],
    [['tests/nothing.test.js'], 1, /^error: there is no tests\/nothing\.test\.js/],
  ])) {
    const run = npmTest(...args);
    assert.equal(run.status, status, `${args}: ${run.stderr}`);
    assert.match(run.stdout + run.stderr, message);
  }
});

/**
 * A test file that can be given to npm test.
 * @param {import('node:test').TestContext} t @param {string} code
 */
function testFile(t, code) {
  const folder = 'build/reporter';
  t.after(() => rmSync(path.join(root, folder), { recursive: true, force: true }));
  mkdirSync(path.join(root, folder), { recursive: true });
  writeFileSync(path.join(root, folder, 'some.test.js'), `import { test } from 'node:test';\n${code}`);
  return `${folder}/some.test.js`;
}

test('npm test: the exit status says whether all passed', (t) => {
  for (const [body, status, line] of /** @type {[string, number, RegExp][]} */ ([
    ['', 0, /^ℹ pass 2$/m],
    ["throw new Error('no');", 1, /^ℹ fail 1$/m],
  ])) {
    const run = npmTest(testFile(t, `test('one', () => {});\ntest('two', () => { ${body} });\n`));
    assert.equal(run.status, status, run.stdout + run.stderr);
    assert.match(run.stdout, line);
  }
});

/**
 * Whether a process runs. One that has ended, but whose status nobody has read, does not.
 * @param {number} pid
 */
function isRunning(pid) {
  assert.ok(pid > 0);
  try {
    process.kill(pid, 0);
    return !existsSync('/proc/self/stat') || !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

test('npm test: a file that does not end is ended, and so is all it started', async (t) => {
  const file = testFile(
    t,
    `import { startBrowser } from '../../tests/browser/process.js';
    test('a test that ends', () => {});
    const browser = startBrowser(['sleep', '600'], import.meta.dirname);
    console.log('it is ' + browser.pid);\n`,
  );
  const { status, stdout, stderr } = npmTest('--test-timeout', '3000', file);
  assert.equal(status, 1, stdout + stderr);
  assert.match(stdout, /✔ a test that ends/);
  assert.match(stdout, /✖ \S*some\.test\.js/);
  assert.match(stderr, /^error: not done after 3000 ms, and ended: \S*some\.test\.js$/m);
  const pid = Number(/it is (\d+)/.exec(stdout)?.[1]);
  for (let i = 0; i < 100 && isRunning(pid); i++) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(isRunning(pid), false);
});
