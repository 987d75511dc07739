/**
 * The template engine compared with Jinja2 3.1: small templates for each kind of expression and
 * statement, and whole templates in the style of known models. Jinja2 refuses the cases without a
 * text.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LimitError, TemplateError } from '../../js/llama/chat/jinja/index.js';
import { NOW, readCases, render } from '../helpers/chat-cases.js';

/** @param {import('node:test').TestContext} t */
function stopClock(t) {
  t.mock.timers.enable({ apis: ['Date'], now: NOW });
}

/**
 * @param {string} name @param {string} template @param {Record<string, unknown>} variables
 * @param {string | undefined} text
 */
function check(name, template, variables, text) {
  if (text === undefined)
    assert.throws(
      () => render(template, variables),
      (error) => error instanceof TemplateError || error instanceof LimitError,
      `${name}: ${template} is refused`,
    );
  else assert.equal(render(template, variables), text, `${name}: ${template}`);
}

const expressions = readCases('chat-expressions.jsonl');
for (const group of new Set(expressions.map((one) => one.group))) {
  test(`jinja: ${group}`, (t) => {
    stopClock(t);
    const cases = expressions.filter((one) => one.group === group);
    assert.ok(cases.length > 4);
    for (const { template, variables, text } of cases) check(group, template, variables, text);
  });
}

const lines = readCases('chat-templates.jsonl');
for (const { name, template } of lines.filter((one) => one.template)) {
  test(`jinja: a template like that of ${name}`, (t) => {
    stopClock(t);
    const cases = lines.filter((one) => one.of === name);
    assert.ok(cases.length >= 6);
    for (const { case: which, variables, text } of cases)
      check(`${name}, ${which}`, template, variables, text);
  });
}

test('jinja: the line of a mistake is in its message', () => {
  assert.throws(() => render('a\nb\n{{ 1 + }}'), /line 3: an unexpected "}}"/);
  assert.throws(() => render('{% if true %}\n{{ x }}'), /line 2: .* instead of \{% elif %\} or \{% else %\}/);
  assert.throws(() => render('{{ "\n\n" }}{% nonsense %}'), /line 3: the tag "nonsense" is unknown/);
  assert.throws(() => render('{% include "x" %}'), /the tag "include" is not supported/);
  assert.throws(() => render('{{ x | nonsense }}'), /No filter named 'nonsense'/);
  assert.throws(() => render('{{ x.y.z }}', { x: {} }), /'dict object' has no attribute 'y'/);
});

test('jinja: the time is the local time, in every field', (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: new Date(2024, 11, 30, 0, 5, 6) });
  const shown = (/** @type {string} */ format) => render(`{{ strftime_now('${format}') }}`);
  assert.equal(shown('%I:%M %p|%-I|%j|%U|%W|%V|%G|%u|%w'), '12:05 AM|12|365|52|53|01|2025|1|1');
  assert.equal(shown('%q %'), '%q %', 'what is no field stays');
});

test('jinja: values of JavaScript arrive as those of Python', () => {
  const given = { a: [1, 1.5, 2 ** 60, true, null], m: new Map([['k', { u: undefined }]]) };
  assert.equal(
    render('{{ a }}{{ m }}{{ m.k.u is defined }}', given),
    "[1, 1.5, 1.152921504606847e+18, True, None]{'k': {}}False",
  );
  assert.throws(() => render('', { f: { g: Symbol('x') } }), /f\.g is Symbol\(x\): a template takes texts/);
  const round = /** @type {any} */ ({});
  round.self = round;
  assert.throws(() => render('', { round }), /is nested 501 levels deep, 500 are allowed/);
});
