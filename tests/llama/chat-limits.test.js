/**
 * Templates from strangers: their limits of steps, memory and time, and how a rendering can be
 * aborted.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Budget, LIMITS } from '../../js/llama/chat/jinja/limits.js';
import { formatMessages } from '../../js/llama/chat.js';
import { ModelError } from '../../js/llama/index.js';

const SPELLINGS = { bos: '<s>', eos: '</s>' };

/** @param {string} template @param {AbortSignal} [signal] */
const format = (template, signal) =>
  formatMessages([{ role: 'user', content: 'Hello' }], template, signal ? { signal } : {}, SPELLINGS);

/**
 * A template that doubles a text or a list n times.
 * @param {string} start @param {number} times @param {string} [step]
 */
const doubled = (start, times, step = 'ns.s + ns.s') =>
  `{% set ns = namespace(s=${start}) %}{% for i in range(${times}) %}{% set ns.s = ${step} %}{% endfor %}`;
const text = "{% set s = 'ab' * 4000000 %}";
const nest = (
  /** @type {string} */ open,
  /** @type {string} */ middle,
  /** @type {string} */ close,
  n = 5000,
) => open.repeat(n) + middle + close.repeat(n);

/** @type {Record<string, string[]>} */
const BOMBS = {
  range: ['{{ range(100001) | length }}', '{% for i in range(0, -3000000, -1) %}{% endfor %}'],
  steps: [
    `{% for i in range(100000) %}${'{% set x = i %}'.repeat(20)}{% endfor %}`,
    '{% for i in range(2000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}',
    '{% macro f(n) %}{% if n < 60 %}{{ f(n + 1) }}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}',
    `${doubled('[1]', 40)}{{ ns.s | length }}`,
    `${doubled('[1]', 40, '[ns.s, ns.s]')}{{ ns.s }}`,
    `${doubled('[1]', 40, '[ns.s, ns.s]')}{{ ns.s | tojson }}`,
    `${doubled('[1]', 40, '[ns.s, ns.s]')}${doubled('[1]', 40, '[ns.s, ns.s]').replaceAll('ns', 'nt')}{{ ns.s == nt.s }}`,
    '{{ [1] * 1000000000 }}',
    '{{ (1, 2) * 1000000000 }}',
    "{{ [1] | batch(1000000000, 'x') | list }}",
    '{{ [1] | slice(1000000000) | list }}',
    '{% for i in range(100) %}{% set x = range(100000) | list | sort %}{% endfor %}',
    "{% for i in range(1000) %}{% set x = ('a,' * 4000000).split(',') %}{% endfor %}",
    "{% for c in 'a' * 9000000 %}{% endfor %}",
    "{% for i in range(100) %}{% set x = range(100000) | map('string') | map('upper') | list %}{% endfor %}",
  ],
  length: [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    `${doubled("'ab'", 40)}{{ ns.s | length }}`,
    `${doubled("'ab'", 40, 'ns.s ~ ns.s')}{{ ns.s | length }}`,
    "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000).replace('', 'b' * 1000) }}",
    "{{ range(100000) | join('x' * 1000000) }}",
    "{{ ('x' * 1000000).join('abcdefghijklmnopqrstuvwxyz') }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' | format(1000000000, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format('a', w=1000000000) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}{{ 'a'.zfill(1000000000) }}",
    "{{ '\\t'.expandtabs(1000000000) }}",
    "{{ 'a\\nb' | indent(1000000000) }}",
    '{{ [[1]] | tojson(indent=1000000000) }}',
    "{% for i in range(100000) %}{{ 'x' * 100000 }}{% endfor %}",
    "{% macro f(s) %}{{ f(s ~ s) }}{% endmacro %}{{ f('x' * 100000) }}",
  ],
  characters: [
    `${text}{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + [s | upper] %}{% endfor %}`,
    "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + ['a' * 9000000] %}{% endfor %}",
    "{% for i in range(1000) %}{% set x %}{{ 'x' * 9000000 }}{% endset %}{% endfor %}",
  ],
  depth: [
    '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}',
    '{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}',
    `${doubled('[1]', 90000, '[ns.s]')}{{ ns.s }}`,
    `${doubled('[1]', 90000, '[ns.s]')}{{ ns.s | tojson }}`,
    '{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}',
    `{{ x${nest('.a', '', '')} }}`,
    `{{ 1${nest('|abs', '', '')} }}`,
  ],
  nesting: [
    `{{ ${nest('(', '1', ')')} }}`,
    `{{ ${nest('[', '1', ']')} }}`,
    `{{ ${nest('not ', '1', '')} }}`,
    `{{ ${nest('-', '1', '')} }}`,
    `{{ ${nest('1 if 0 else ', '1', '')} }}`,
    nest('{% if 1 %}', 'x', '{% endif %}'),
  ],
  source: ['x'.repeat(LIMITS.source + 1)],
};

for (const [limit, bombs] of Object.entries(BOMBS)) {
  test(`chat: no template passes the limit of ${limit}`, async () => {
    for (const template of bombs) {
      const since = performance.now();
      const error = await format(template).catch((/** @type {unknown} */ reason) => reason);
      const what = `${template.slice(0, 120)}: ${error}`;
      assert.ok(error instanceof ModelError, what);
      const { limit: name, got, expected } = /** @type {any} */ (error);
      assert.deepEqual([name, expected], [limit, /** @type {any} */ (LIMITS)[limit]], what);
      assert.ok(got > expected && Number.isFinite(got), what);
      assert.ok(
        error.message.includes(`${got} `) && error.message.includes(`(${limit}) is ${expected}`),
        what,
      );
      // The time limit, and as much again for a machine with other work.
      assert.ok(performance.now() - since < 2 * LIMITS.milliseconds, what);
    }
  });
}

test('chat: no template takes long, whatever it does with long texts', async () => {
  const loops = [
    "{% if 'abb' in s %}{% endif %}",
    '{% if s is upper %}{% endif %}',
    "{% if 'x'.strip(s) == 'y' %}{% endif %}",
    '{% set x = s.title() %}',
    '{% set x = s[i] %}',
    '{% set x = s[::-1] %}',
    "{% set x = s.find('z', i) %}",
    "{% set x = strftime_now('%c' * 1000) %}",
  ];
  for (const loop of loops) {
    const since = performance.now();
    await assert.rejects(format(`${text}{% for i in range(100000) %}${loop}{% endfor %}`), (error) => {
      const { limit } = /** @type {any} */ (error);
      return error instanceof ModelError && ['milliseconds', 'steps', 'characters'].includes(limit);
    });
    assert.ok(performance.now() - since < 2 * LIMITS.milliseconds, loop);
  }
});

test('chat: no source takes long to read, whatever is in it', async () => {
  const sources = [
    '{{ 1 }}'.repeat(140_000),
    '{'.repeat(900_000),
    '{#'.repeat(400_000),
    '{% raw %}'.repeat(100_000),
    `{%${' '.repeat(900_000)}`,
    `{{ '${'\\'.repeat(900_001)}`,
    `{{ ${'9'.repeat(900_000)} }}`,
    `{{ ${"'".repeat(900_000)} }}`,
    `{{ ${'a'.repeat(900_000)} }}`,
    `${'\n'.repeat(300_000)}{% set x = 1 %}`.repeat(3),
    `{% if 0 %}${'{% elif 0 %}'.repeat(50_000)}{% endif %}`,
    "{{ ('<!--' * 2000000) | striptags | length }}",
    "{{ ('<' * 9000000) | striptags | length }}",
    "{{ ('%(' * 4000000) % {} }}",
  ];
  for (const source of sources) {
    const since = performance.now();
    await format(source).catch((error) => assert.ok(error instanceof ModelError, error));
    assert.ok(performance.now() - since < 2 * LIMITS.milliseconds, source.slice(0, 60));
  }
});

test('chat: a conversation of a thousand messages is far below the limits', async () => {
  const template =
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}{% endif %}{{ '<|' ~ m.role ~ '|>' ~ m.content | trim }}{% endfor %}";
  const messages = Array.from({ length: 1000 }, (_, i) => ({
    role: i % 2 ? 'assistant' : 'user',
    content: `${i} ${'word '.repeat(800)}`,
  }));
  const done = await formatMessages(messages, template, {}, SPELLINGS);
  assert.ok(done.length > 4_000_000);
});

test('chat: a rendering is broken off before, in the middle, and never after its end', async () => {
  const slow = '{% for i in range(1000) %}{% for j in range(900) %}{% endfor %}{% endfor %}done';
  const reason = new Error('enough');
  await assert.rejects(format(slow, AbortSignal.abort(reason)), reason);
  const controller = new AbortController();
  const running = format(slow, controller.signal);
  let turns = 0;
  const timer = setInterval(() => {
    turns += 1;
    if (turns === 2) controller.abort(reason);
  }, 1);
  await assert.rejects(running, reason);
  clearInterval(timer);
  assert.equal(turns, 2, 'timers run while a template does');
  assert.equal(await format('done', controller.signal).catch((error) => error), reason);
});

test('chat: steps are counted one by one', () => {
  const budget = new Budget();
  budget.steps = LIMITS.steps - 1;
  budget.step();
  assert.throws(() => budget.step(), /2000001 steps, the limit \(steps\) is 2000000/);
});

test('chat: the stack of the engine may end first', async () => {
  const deep = () => {
    /** @returns {Promise<string>} */
    const down = (/** @type {number} */ n) =>
      n > 0 ? down(n - 1) : format('{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}');
    return down(5000);
  };
  await assert.rejects(
    deep(),
    (error) => error instanceof ModelError && /levels of nesting/.test(error.message),
  );
});

test('chat: time in which others have their turn does not count', async () => {
  const budget = new Budget();
  budget.rest();
  await new Promise((resolve) => setTimeout(resolve, 30));
  budget.resume();
  let due = false;
  for (let i = 0; i < 256; i++) due = budget.step();
  assert.equal(due, false);
});
