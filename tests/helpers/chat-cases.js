/** Templates, their variables, and the results of Jinja2 with the settings of transformers. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { toValue } from '../../js/llama/chat/jinja/convert.js';
import { Template } from '../../js/llama/chat/jinja/index.js';
import { projectRoot } from './test-data.js';

/** The time that strftime_now returned when the results were made. */
export const NOW = new Date(2026, 2, 5, 14, 7, 9);

/** The lines of a file, each a JSON value. @param {string} name @returns {any[]} */
export const readCases = (name) =>
  readFileSync(path.join(projectRoot, 'tests/llama', name), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

/**
 * Renders a template with variables, as plain text.
 * @param {string} source
 * @param {Record<string, unknown>} [variables]
 * @returns {string}
 */
export function render(source, variables = {}) {
  const values = Object.entries(variables).map(([name, value]) => [name, toValue(value, name)]);
  const { run } = new Template(source).start(() => new Map(/** @type {[string, any][]} */ (values)));
  for (;;) {
    const { done, value } = run.next();
    if (done) return String(value);
  }
}
