/** The command: its output on stdout and stderr, and its exit status. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { helpText, readArguments, UsageError } from '../../js/cli/options.js';
import { formatBytes, formatTable, modelSource, Progress, promptProgress } from '../../js/cli/output.js';
import { Llama } from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { startServer } from '../helpers/range-server.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { projectRoot } from '../helpers/test-data.js';

const MAIN = path.join(projectRoot, 'js/cli/main.js');
const COMMANDS = ['generate', 'chat', 'embed', 'serve', 'inspect', 'bench'];
const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-cli-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** @param {string[]} args @param {string} [input] */
function start(args, input) {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd: folder });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text;
  });
  child.stdin.on('error', () => {});
  child.stdin.end(input ?? '');
  const ended = new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  return { child, done: ended.then((code) => ({ code, out, err })) };
}

/**
 * @param {string[]} args @param {string} [input]
 * @returns {Promise<{ code: number, out: string, err: string }>}
 */
const run = (args, input) => start(args, input).done;
/** @param {string} text */
const lines = (text) => text.trim().split('\n');
const greedy = ['--temperature', '0', '--max-tokens', '12'];

test('cli: generate streams text to stdout and speeds to stderr', async () => {
  const { code, out, err } = await run(['generate', TINY_TALES, '--prompt', 'Once upon a time', ...greedy]);
  assert.equal(code, 0, err);
  assert.match(out, /^Once upon a time, there was a clever boy named Max\. Max\n$/);
  assert.match(err, /prompt: 5 tokens, [\d.]+ tokens\/s; first token after \d+ ms/);
  assert.match(err, /decode: 12 tokens, [\d.]+ tokens\/s; seed \d+/);
  assert.match(err, /memory: [\d.]+ MB \(weights 1\.6 MB, KV cache 393 KB F16\)/);
  assert.match(err, /instruction set: (scalar|simd128|relaxed).*, activations int8, threads: \d+/);
  assert.ok(!err.includes('\x1b'), 'no progress bar where stderr is no terminal');
});

test('cli: generate, prompt from stdin, as JSON', async () => {
  const args = [
    'generate',
    TINY_TALES,
    '-p',
    '-',
    ...greedy,
    '--json',
    '--activation',
    'f32',
    '--isa',
    'scalar',
  ];
  const { code, out, err } = await run(args, 'Once upon a time\n');
  assert.equal(code, 0, err);
  assert.equal(err, '');
  const result = JSON.parse(out);
  assert.equal(result.prompt, 'Once upon a time');
  assert.equal(result.text, ', there was a clever boy named Max. Max');
  assert.deepEqual(
    [result.tokens, result.promptTokens, result.isa, result.activation, result.finishReason],
    [12, 5, 'scalar', 'f32', 'length'],
  );
  assert.ok(result.decodeTokensPerSecond > 0 && result.memory.weights > 1e6 && result.threads >= 1);
});

test('cli: generate writes JSON of a schema', async () => {
  const [schema, grammar] = ['schema.json', 'animal.gbnf'].map((name) => path.join(folder, name));
  writeFileSync(
    schema,
    JSON.stringify({ properties: { animal: { enum: ['fox', 'bear'] } }, required: ['animal'] }),
  );
  writeFileSync(grammar, 'root ::= "fox" | "bear"');
  const write = async (/** @type {string[]} */ ...options) => {
    const { code, out, err } = await run(['generate', TINY_TALES, '-p', 'A', '--json', ...options]);
    assert.equal(code, 0, err);
    return JSON.parse(out).text;
  };
  assert.match(JSON.parse(await write('--schema', schema)).animal, /^(fox|bear)$/);
  assert.match(await write('--grammar', grammar), /^(fox|bear)$/);
  assert.match(await write('--json-object', '--max-tokens', '9'), /^\{/);
  for (const [options, message] of /** @type {[string[], RegExp][]} */ ([
    [['--schema', schema, '--json-object'], /--schema and --json-object cannot be combined/],
    [['--schema', grammar], /--schema: .* is no JSON/],
    [['--grammar', path.join(folder, 'none')], /--grammar: .* cannot be read/],
  ])) {
    const { code, err } = await run(['generate', TINY_TALES, '-p', 'A', ...options]);
    assert.equal(code, 2);
    assert.match(err, message);
  }
});

test('cli: generate takes the options of sampling and of the model', async () => {
  const seeded = async (/** @type {string[]} */ ...options) => {
    const { out, err, code } = await run(['generate', TINY_TALES, '-p', 'One day,', '--json', ...options]);
    assert.equal(code, 0, err);
    return JSON.parse(out);
  };
  const choices = '--seed 5 --max-tokens 20 --top-k 5 --min-p 0 --top-p 1'.split(' ');
  const [once, twice] = [await seeded(...choices), await seeded(...choices)];
  assert.equal(once.text, twice.text);
  assert.equal(once.seed, 5);
  const stopped = await seeded('--stop', '.', '--stop', '!', '--repeat-penalty', '1.1');
  assert.ok(!/[.!]/.test(stopped.text) && stopped.finishReason === 'stop', stopped.text);
  const short = await seeded('--context', '10', '--kv-type', 'Q8_0', '--ignore-end');
  assert.equal(short.finishReason, 'context');
  assert.equal(short.kvType, 'Q8_0');
});

test('cli: embed prints a line for each text', async () => {
  const file = path.join(folder, 'embed.gguf');
  writeFileSync(file, makeModel({ causal: false }).bytes);
  const model = await Llama.load(file, { activation: 'f32' });
  const texts = ['\u4e05\u4e06', '\u4e07', '\u4e05'];
  const parsed = (/** @type {string} */ out) => lines(out).map((line) => JSON.parse(line));
  const expected = async (/** @type {import('../../js/llama/index.js').EmbedOptions} */ options) =>
    (await model.embed(texts, options)).map((vector, i) => ({ text: texts[i], embedding: [...vector] }));
  try {
    const given = await run(['embed', file, ...texts, '--activation', 'f32']);
    assert.deepEqual([given.code, given.err, parsed(given.out)], [0, '', await expected({})]);
    const options = ['--pooling', 'last', '--dimensions', '5', '--raw', '--activation', 'f32'];
    const piped = await run(['embed', file, ...options], `${texts[0]}\n\n${texts[1]}\r\n${texts[2]}\n`);
    const wanted = await expected({ pooling: 'last', dimensions: 5, normalize: false });
    assert.deepEqual([piped.code, parsed(piped.out)], [0, wanted]);
  } finally {
    model.dispose();
  }
  const none = await run(['embed', file], '\n');
  assert.deepEqual([none.code, none.out], [2, '']);
  assert.match(none.err, /there are no texts/);
  const wrong = await run(['embed', file, 'a', '--dimensions', '65']);
  assert.match(wrong.err, /dimensions must be an integer from 1 to 64, got 65/);
  const inspected = await run(['inspect', file]);
  assert.match(inspected.out, /embed takes this file: llama/);
});

test('cli: inspect lists metadata, tensors and kernels, and says what runs', async () => {
  const { code, out, err } = await run(['inspect', TINY_TALES]);
  assert.equal(code, 0, err);
  assert.match(out, /1\.6 MB, 29 tensors/);
  assert.match(out, /general\.architecture +llama/);
  assert.match(out, /blk\.0\.ffn_down\.weight +Q4_K +768 x 256 +111 KB +\w+ int(8|16)/);
  assert.match(out, /Q4_K +19 +1\.2 MB/);
  assert.match(out, /generate takes this file: llama/);
  const json = JSON.parse(
    (await run(['inspect', TINY_TALES, '--json', '--isa', 'scalar', '--activation', 'f32'])).out,
  );
  assert.equal(json.tensors.length, 29);
  assert.deepEqual(json.tensors[2].servedBy, { isa: 'scalar', activation: 'f32' });
  assert.equal(json.runs, true);
  const file = path.join(folder, 'other.gguf');
  writeFileSync(file, makeModel({ architecture: 'gemma9' }).bytes);
  const other = await run(['inspect', file]);
  assert.equal(other.code, 0);
  assert.match(
    other.out,
    /neither generate nor embed takes this file: the architecture "gemma9" is not supported/,
  );
  const refused = await run(['generate', file, '-p', 'x']);
  assert.equal(refused.code, 1);
  assert.match(
    refused.err,
    /^fused-matmul: the architecture "gemma9" is not supported; supported are llama, .*qwen3, .*gemma-embedding\n$/,
  );
});

test('cli: bench prints a table, or JSON', async () => {
  const size = ['--prompt-tokens', '8', '--tokens', '5', '--runs', '2'];
  const { code, out, err } = await run(['bench', TINY_TALES, ...size]);
  assert.equal(code, 0, err);
  assert.match(out, /prompt of 8 +[\d.]+ +[\d.]+ +[\d.]+\ndecode of 5 +[\d.]+/);
  const json = JSON.parse((await run(['bench', TINY_TALES, ...size, '--json'])).out);
  assert.ok(
    json.promptTokensPerSecond.median > 0 &&
      json.decodeTokensPerSecond.worst <= json.decodeTokensPerSecond.best,
  );
  assert.ok(json.firstTokenMs.median > 0 && json.loadMs > 0);
});

test('cli: a model from an address', async (t) => {
  const server = await startServer(new Uint8Array(readFileSync(TINY_TALES)));
  t.after(() => server.close());
  const { code, out, err } = await run(['generate', server.url, '-p', 'Once', ...greedy, '--json']);
  assert.equal(code, 0, err);
  assert.equal(JSON.parse(out).tokens, 12);
  assert.equal(
    modelSource('https://huggingface.co/a/b/blob/main/c.gguf'),
    'https://huggingface.co/a/b/resolve/main/c.gguf',
  );
  assert.equal(modelSource('models/blob/x.gguf'), 'models/blob/x.gguf');
});

test('cli: chat answers line by line', async () => {
  const template = '{% for m in messages %}{{ m.content }}{% endfor %}';
  const file = path.join(folder, 'chat.gguf');
  writeFileSync(
    file,
    makeModel({ pairs: { 'tokenizer.chat_template': ['tokenizer.chat_template', 'string', template] } })
      .bytes,
  );
  const { code, out, err } = await run(
    ['chat', file, '--max-tokens', '4', '--seed', '1', '--ignore-end', '--json'],
    '\u4e05\n\u4e06\n\nnever\n',
  );
  assert.equal(code, 0, err);
  const answers = lines(out).map((line) => JSON.parse(line));
  assert.deepEqual(
    answers.map(({ prompt }) => prompt),
    ['\u4e05', '\u4e06'],
  );
  assert.ok(answers[1].reusedTokens >= 2);
  const without = await run(['chat', TINY_TALES], 'hello\n');
  assert.deepEqual(
    [without.code, without.err],
    [1, 'fused-matmul: the file has no chat template (tokenizer.chat_template): use generate\n'],
  );
});

test('cli: help for all and for each, and the version', async () => {
  const { code, out } = await run(['--help']);
  assert.equal(code, 0);
  for (const name of COMMANDS) {
    assert.match(out, new RegExp(`^  ${name} `, 'm'));
    const help = await run([name, '--help']);
    assert.equal(help.code, 0);
    assert.match(help.out, new RegExp(`^usage: fused-matmul ${name} MODEL\\.gguf`));
    assert.match(help.out, name === 'embed' ? /--raw.*(\n.*)*--help/ : /--json.*\n.*--help/);
  }
  const { version } = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8'));
  assert.equal((await run(['--version'])).out, `${version}\n`);
});

test('cli: mistakes end with 2 and one line, failures with 1', async () => {
  /** @type {[string[], number, RegExp][]} */
  const cases = [
    [['sing'], 2, /no command "sing"; commands are generate, chat, embed, serve, inspect, bench/],
    [[], 2, /a command is missing/],
    [['generate'], 2, /0 argument\(s\) given, expected 1: fused-matmul generate MODEL\.gguf/],
    [['generate', TINY_TALES], 2, /--prompt is missing/],
    [
      ['generate', TINY_TALES, '-p', 'x', '--temperture', '1'],
      2,
      /'--temperture'; see fused-matmul generate --help/,
    ],
    [['generate', TINY_TALES, '-p', 'x', '--top-k', 'many'], 2, /--top-k must be a number, got "many"/],
    [['generate', TINY_TALES, '-p', 'x', '--top-p', '7'], 2, /--top-p must be a number from 0 to 1, got 7/],
    [
      ['generate', TINY_TALES, '-p', 'x', '--kv-type', 'Q4_0'],
      2,
      /--kv-type must be one of F32, F16, Q8_0, got "Q4_0"/,
    ],
    [['generate', TINY_TALES, '-p', 'x', '--top-k', '-1'], 2, /--top-k must be an integer from 0 .*, got -1/],
    [['chat', TINY_TALES, '--context', '0'], 2, /--context must be an integer from 1 .*, got 0/],
    [['bench', TINY_TALES, '--runs', '0'], 2, /--runs must be an integer from 1 on, got 0/],
    [['generate', 'nowhere.gguf', '-p', 'x'], 1, /cannot read nowhere\.gguf/],
    [['inspect', MAIN], 1, /no GGUF file/],
    [
      ['generate', TINY_TALES, '-p', 'Once '.repeat(300)],
      1,
      /the prompt has \d+ tokens, the context has room for 256/,
    ],
  ];
  for (const [args, expected, message] of cases) {
    const { code, err } = await run(args);
    const name = args.join(' ').slice(0, 80);
    assert.equal(code, expected, `${name}: ${err}`);
    assert.match(err, message, name);
    assert.match(err, /^fused-matmul: [^\n]*\n$/, `${name}: one line`);
  }
});

test('cli: Ctrl-C ends it cleanly', { skip: process.platform === 'win32' && 'no signals' }, async () => {
  const { child, done } = start([
    'generate',
    TINY_TALES,
    '-p',
    'Once',
    '--ignore-end',
    '--max-tokens',
    '240',
    '--isa',
    'scalar',
    '--activation',
    'f32',
  ]);
  child.stdout.once('data', () => child.kill('SIGINT'));
  const { code, out, err } = await done;
  assert.equal(code, 130, err);
  assert.equal(err, '');
  assert.ok(out.startsWith('Once') && out.endsWith('\n'));
});

test('cli: Ctrl-C ends it while it waits for stdin', {
  skip: process.platform === 'win32' && 'no signals',
}, async () => {
  const child = spawn(process.execPath, [MAIN, 'generate', 'missing.gguf', '-p', '-']);
  let err = '';
  child.stderr.on('data', (text) => {
    err += text;
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  // More than a pipe holds, so that it is written when the command reads.
  await new Promise((resolve) => child.stdin.write('Once '.repeat(1 << 18), resolve));
  child.kill('SIGINT');
  assert.deepEqual([await ended, err], [130, '']);
});

test('cli: the number of tokens has three names', async () => {
  for (const name of ['-n', '--tokens', '--max-tokens']) {
    const { out, err } = await run([
      'generate',
      TINY_TALES,
      '-p',
      'Once',
      name,
      '3',
      '--ignore-end',
      '--json',
    ]);
    assert.equal(JSON.parse(out).tokens, 3, err);
  }
});

test('cli: a reader that goes away is no error', {
  skip: process.platform === 'win32' && 'no pipes',
}, async () => {
  const { child, done } = start([
    'generate',
    TINY_TALES,
    '-p',
    'Once',
    '--ignore-end',
    '--max-tokens',
    '200',
  ]);
  child.stdout.once('data', () => child.stdout.destroy());
  const { code, err } = await done;
  assert.equal(code, 0, err);
});

test('cli: options, tables and the progress bar', () => {
  /** @type {import('../../js/cli/options.js').Command} */
  const command = {
    name: 'x',
    summary: 'does',
    usage: 'FILE',
    nArguments: 1,
    options: {
      'top-k': { kind: 'number', short: 'k', value: 'K', help: 'k' },
      help: { kind: 'switch', short: 'h', help: 'h' },
    },
    run: async () => {},
  };
  assert.deepEqual(readArguments(command, ['f', '--top-k=3']), { values: { 'top-k': 3 }, args: ['f'] });
  for (const args of [['--top-k', '-3'], ['--top-k=-3'], ['-k', '-3']])
    assert.deepEqual(readArguments(command, ['f', ...args]).values, { 'top-k': -3 });
  assert.deepEqual(readArguments(command, ['--', '-3']), { values: {}, args: ['-3'] });
  assert.deepEqual(readArguments(command, ['-h']).values, { help: true });
  assert.throws(() => readArguments(command, ['f', '--top-k', '']), UsageError);
  assert.match(
    helpText(command),
    /usage: fused-matmul x FILE\n\ndoes\n\n {2}-k, --top-k K +k\n {2}-h, --help +h\n/,
  );
  assert.deepEqual([0, 999, 1000, 1234567, 5e9].map(formatBytes), [
    '0 B',
    '999 B',
    '1.0 KB',
    '1.2 MB',
    '5.0 GB',
  ]);
  assert.equal(
    formatTable(
      ['a', '>b'],
      [
        ['xx', '1'],
        ['y', '22'],
      ],
    ),
    'a    b\nxx   1\ny   22\n',
  );
  let written = '';
  const io = (/** @type {boolean} */ isTTY) =>
    /** @type {any} */ ({
      stderr: {
        isTTY,
        columns: 200,
        write: (/** @type {string} */ text) => {
          written += text;
        },
      },
    });
  const bar = new Progress(io(true), 'loading');
  bar.update({ loaded: 5e6, total: 1e7 });
  bar.done();
  const shown = `loading [${'#'.repeat(12)}${'.'.repeat(12)}]  50 %  5.0 MB of 10.0 MB`;
  assert.equal(written, `\r\x1b[K${shown}\r\x1b[K`);
  written = '';
  const ofPrompt = promptProgress(io(true));
  ofPrompt({ phase: 'prompt', done: 512, total: 2048 });
  ofPrompt({ phase: 'prompt', done: 2048, total: 2048 });
  const read = `reading the prompt [${'#'.repeat(6)}${'.'.repeat(18)}]  25 %  512 of 2048 tokens`;
  assert.equal(written, `\r\x1b[K${read}\r\x1b[K`);
  written = '';
  new Progress(io(false), 'loading').update({ loaded: 1, total: 2 });
  assert.equal(written, '');
});
