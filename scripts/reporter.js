/**
 * A reporter for node:test that joins several runs into one. Before the closing summary it prints a
 * report for readers who do not know the project: which instruction sets, engines and features ran
 * and where, the diagnostics of tests that start with 'ran: ', and the skipped tests with their
 * reasons.
 */
import path from 'node:path';
import { Readable } from 'node:stream';
import { spec } from 'node:test/reporters';
import { root } from './setup/run.js';

/**
 * @typedef {object} Report
 * @property {{ name: string, file: string }[]} passed  not skipped
 * @property {{ name: string, file: string, reason: string }[]} skipped
 * @property {{ name: string, file: string }[]} failed
 * @property {string[]} ran
 * @property {Record<string, number>} ms  total time of the tests in each file
 */

/**
 * The lines of the report. A feature ran if a test passed whose file and name match, or that said
 * so in a diagnostic. `where`: the parts of those diagnostics that name engines.
 * @type {{ feature: string, file: RegExp, name?: RegExp, said?: RegExp }[]}
 */
const FEATURES = [
  { feature: 'scalar C', file: /(kernels|isa)\.test/, name: /scalar/, said: /module, scalar/ },
  { feature: 'SIMD128', file: /(kernels|isa)\.test/, name: /simd128/, said: /module, simd128/ },
  { feature: 'relaxed SIMD', file: /(kernels|isa)\.test/, name: /relaxed/, said: /module, relaxed/ },
  { feature: 'the kernels on arm64', file: /arm64\.test/, said: /on arm64/ },
  { feature: 'threads', file: /thread/, said: /threads?\b/ },
  { feature: 'workers', file: /worker/ },
  { feature: 'a browser', file: /browser\//, said: /Chromium|Firefox|WebKit/ },
  { feature: 'GPU kernels', file: /gpu\//, said: /GPU kernels/ },
  { feature: 'the demo page', file: /demo.*\.test/ },
  { feature: 'the packed package in other programs', file: /(package|consumers).*\.test/, said: /Deno|Bun/i },
  { feature: 'real models', file: /(models|logits|llama-model).*\.test/ },
  { feature: 'ggml’s own bytes', file: /golden\.test/ },
  { feature: 'native C under sanitizers', file: /native\.test/ },
  { feature: 'fuzzing, a short run', file: /fuzz\.test/ },
  { feature: 'hostile blocks and files', file: /robust-(blocks|gguf)\.test/ },
  { feature: 'out of memory, soak', file: /(robust-memory|soak)\.test/ },
  { feature: 'trust: interfaces, policy, hashes', file: /trust\.test/ },
];

const ENGINE = /\b(?:Node|Chromium|Firefox|WebKit|Deno|deno|Bun) v?\d+[\d.]*/g;

/** Most names shown of the tests that were skipped for the same reason. */
const MAX_NAMES = 3;
const MAX_FILES = 20;

/** Names and values in the runner's summary. */
const SUMMARY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)$/;

/** @param {string[]} list */
const unique = (list) => [...new Set(list)];

/** @param {Report} report @returns {string[]} */
function featureLines({ passed, skipped, failed, ran }) {
  const here = `Node ${process.versions.node}`;
  return FEATURES.flatMap(({ feature, file, name = /./, said }) => {
    const isOf = (/** @type {{ file: string, name: string }} */ test) =>
      file.test(test.file) && name.test(test.name);
    const nPassed = passed.filter(isOf).length;
    const failures = failed.filter(isOf).length;
    const skips = skipped.filter(isOf);
    const told = said ? ran.filter((line) => said.test(line)) : [];
    const label = feature.padEnd(38);
    if (failures > 0) return [`  ${label}FAILED  ${failures} of ${failures + nPassed} tests`];
    if (nPassed > 0 || told.length > 0) {
      const engines = unique(told.flatMap((line) => line.match(ENGINE) ?? []));
      return [`  ${label}yes  ${(engines.length > 0 ? engines : [here]).join(', ')}`];
    }
    if (skips.length > 0) return [`  ${label}NO   ${unique(skips.map(({ reason }) => reason)).join('; ')}`];
    return [];
  });
}

/** @param {Report['skipped']} skipped @returns {string[]} */
function skipLines(skipped) {
  if (skipped.length === 0) return ['nothing was skipped'];
  const lines = [`what was skipped, and why (${skipped.length} tests):`];
  for (const reason of unique(skipped.map((test) => test.reason))) {
    const tests = skipped.filter((test) => test.reason === reason);
    const names = tests.slice(0, MAX_NAMES).map(({ name }) => name);
    const more = tests.length > MAX_NAMES ? ` and ${tests.length - MAX_NAMES} more` : '';
    const files = unique(tests.map(({ file }) => path.basename(file))).join(', ');
    lines.push(`  ${reason}`, `    ${files}: ${names.join(' | ')}${more}`);
  }
  return lines;
}

/** @param {Record<string, number>} ms */
const longest = (ms) =>
  Object.entries(ms)
    .sort(([, a], [, b]) => b - a)
    .slice(0, MAX_FILES)
    .map(
      ([file, time]) =>
        `${path.basename(path.dirname(file))}/${path.basename(file, '.test.js')} ${(time / 1000).toFixed(0)} s`,
    )
    .join(', ');

/** @param {Report} report @returns {string[]} */
export function reportLines(report) {
  const { passed, skipped, ran } = report;
  const files = unique([...passed, ...skipped].map(({ file }) => file)).length;
  const features = featureLines(report);
  const said = unique(ran).map((line) => `  ${line.replace(/^ran: /, '')}`);
  return [
    '',
    `what ran, in Node ${process.versions.node} on ${process.platform} ${process.arch}, ${files} test files:`,
    ...features,
    ...(said.length > 0 ? ['what the tests say of it:', ...said] : []),
    `what took longest: ${longest(report.ms)}`,
    ...skipLines(skipped),
    '',
  ];
}

/** @param {(() => AsyncIterable<any>)[]} runs @param {Report} report */
async function* events(runs, report) {
  /** @type {Map<string, { event: any, sum: number }>} */
  const summary = new Map();
  for (const run of runs) {
    for await (const event of run()) {
      const { type, data } = event;
      const [, what, number] =
        (type === 'test:diagnostic' && data.nesting === 0 && SUMMARY.exec(data.message)) || [];
      if (what !== undefined && !data.file) {
        summary.set(what, { event, sum: Number(number) + (summary.get(what)?.sum ?? 0) });
        continue;
      }
      note(event, report);
      yield event;
    }
  }
  const [{ event }] = summary.values();
  const say = (/** @type {string} */ message) => ({ ...event, data: { ...event.data, message } });
  for (const line of reportLines(report)) yield say(line);
  for (const [what, { sum }] of summary) yield say(`${what} ${sum}`);
}

/** @param {any} event @param {Report} report */
function note({ type, data }, report) {
  const where = { name: data?.name, file: data?.file ? path.relative(root, data.file) : '' };
  if (type === 'test:diagnostic' && data.message.startsWith('ran: ')) report.ran.push(data.message);
  if (type !== 'test:pass' && type !== 'test:fail') return;
  if (data.nesting === 0) report.ms[where.file] = (report.ms[where.file] ?? 0) + data.details.duration_ms;
  if (type === 'test:fail') report.failed.push(where);
  else if (data.skip === undefined || data.skip === false) report.passed.push(where);
  else report.skipped.push({ ...where, reason: data.skip === true ? 'no reason given' : data.skip });
}

/**
 * @param {(() => AsyncIterable<any>)[]} runs  each begins after the one before it has ended
 * @returns {{ report: Report, output: import('node:stream').Readable }}  the report is complete
 *   when the output has ended
 */
export function reporter(runs) {
  /** @type {Report} */
  const report = { passed: [], skipped: [], failed: [], ran: [], ms: {} };
  const Spec = /** @type {any} */ (spec);
  return { report, output: Readable.from(events(runs, report)).pipe(new Spec()) };
}
