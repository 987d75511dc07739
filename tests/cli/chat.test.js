/** `fused-matmul chat`: conversations that outgrow the context, and system texts. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { makeModel } from '../helpers/synthetic-llama.js';
import { projectRoot } from '../helpers/test-data.js';

const MAIN = path.join(projectRoot, 'js/cli/main.js');
const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-chat-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** @param {string} template @param {string[]} args @param {string} input */
async function chat(template, args, input) {
  const file = path.join(folder, 'chat.gguf');
  writeFileSync(
    file,
    makeModel({ pairs: { 'tokenizer.chat_template': ['tokenizer.chat_template', 'string', template] } })
      .bytes,
  );
  const child = spawn(process.execPath, [
    MAIN,
    'chat',
    file,
    '--json',
    '--seed',
    '1',
    '--ignore-end',
    ...args,
  ]);
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text;
  });
  child.stdin.end(input);
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  const answers = out.trim()
    ? out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
    : [];
  return { code, answers, err };
}

/** A character that the synthetic model has as a token. @param {number} i */
const letter = (i) => String.fromCharCode(0x4e00 + 4 + i);
const plain = '{% for m in messages %}{{ m.content }}{% endfor %}';
const strict = `{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}{% endif %}{{ m.content }}{% endfor %}`;

test('cli: a conversation goes on when the context is full', async () => {
  const lines = Array.from({ length: 9 }, (_, i) => letter(i).repeat(6));
  const { code, answers, err } = await chat(
    plain,
    ['--context', '40', '--max-tokens', '6'],
    `${lines.join('\n')}\n`,
  );
  assert.equal(code, 0, err);
  assert.deepEqual(
    answers.map(({ prompt }) => prompt),
    lines,
  );
  assert.match(err, /^fused-matmul: the context is full: the 2 oldest messages were left out$/m);
  assert.ok(answers.every(({ promptTokens }) => promptTokens <= 34));
  assert.equal(answers[0].droppedMessages, 0);
  assert.ok(answers.at(-1).droppedMessages > 0);
  assert.ok(
    answers.every(({ tokens }) => tokens === 6),
    'each answer has its room',
  );
});

test('cli: a line that is too long for the context is left out, and the next is answered', async () => {
  const lines = [letter(1), letter(2).repeat(100), letter(3)];
  const { code, answers, err } = await chat(
    plain,
    ['--context', '40', '--max-tokens', '4'],
    `${lines.join('\n')}\n`,
  );
  assert.equal(code, 0, err);
  assert.deepEqual(
    answers.map(({ prompt }) => prompt),
    [lines[0], lines[2]],
  );
  assert.match(
    err,
    /this line does not fit into the context and is left out: the prompt has 10\d tokens, the context has room for 40/,
  );
  assert.ok(answers[1].promptTokens < 12, 'the conversation itself is kept');
});

test('cli: a system text where the template has no system role', async () => {
  const lines = Array.from({ length: 6 }, (_, i) => letter(i).repeat(5));
  const args = ['--context', '40', '--max-tokens', '5', '--system', letter(30).repeat(20)];
  const { code, answers, err } = await chat(strict, args, `${lines.join('\n')}\n`);
  assert.equal(code, 0, err);
  assert.equal(answers.length, 6);
  assert.match(
    err,
    /^fused-matmul: the chat template has no system role: the system text goes in front of the first turn$/m,
  );
  assert.match(err, /oldest messages were left out/);
  // The system text and a line are 25 tokens, plus the tokens of two line ends. Two turns without
  // it are 15.
  assert.ok(
    answers.every(({ promptTokens }) => promptTokens > 25),
    'the system text stays when turns go',
  );
  const with_ = await chat(plain, args, `${lines[0]}\n`);
  assert.equal(with_.code, 0);
  assert.doesNotMatch(with_.err, /system role/);
  const none = await chat(strict, [], `${lines[0]}\n`);
  assert.doesNotMatch(none.err, /system role/);
});
