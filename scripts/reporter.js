/**
 * node:test's spec reporter; above its closing summary it adds what was skipped and why, and what the tests said they ran
 * on (diagnostics that start with 'ran: '). Leaves the same in build/test-report.json for scripts/test.js.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { spec } from 'node:test/reporters';
import { root } from './setup/run.js';

export const REPORT_FILE = path.join(root, 'build/test-report.json');

/**
 * @typedef {object} Report
 * @property {{ name: string, file: string }[]} passed  not skipped
 * @property {{ name: string, file: string, reason: string }[]} skipped
 * @property {string[]} ran
 */

const isSummary = (/** @type {any} */ { type, data }) =>
  type === 'test:diagnostic' && data.nesting === 0 && /^tests \d+$/.test(data.message);

/** @param {Report} report @returns {string[]} */
function lines({ skipped, ran }) {
  /** @type {Map<string, string[]>} */
  const byReason = new Map();
  for (const { name, reason } of skipped) byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  const skips = [...byReason].map(
    ([reason, [first, ...more]]) =>
      `skipped: ${first}${more.length > 0 ? ` and ${more.length} more` : ''}: ${reason}`,
  );
  return [...new Set(ran), ...skips];
}

/** @param {AsyncIterable<any>} events */
async function* withReport(events) {
  /** @type {Report} */
  const report = { passed: [], skipped: [], ran: [`ran: Node ${process.versions.node}`] };
  for await (const event of events) {
    const { type, data } = event;
    const where = { name: data?.name, file: data?.file ? path.relative(root, data.file) : '' };
    if (type === 'test:pass' && data.skip !== undefined && data.skip !== false) {
      report.skipped.push({ ...where, reason: data.skip === true ? 'no reason given' : data.skip });
    } else if (type === 'test:pass') {
      report.passed.push(where);
    } else if (isSummary(event)) {
      for (const message of lines(report)) yield { ...event, data: { ...data, message } };
    } else if (type === 'test:diagnostic' && data.message.startsWith('ran: ')) {
      report.ran.push(data.message);
    }
    yield event;
  }
  mkdirSync(path.dirname(REPORT_FILE), { recursive: true });
  writeFileSync(REPORT_FILE, `${JSON.stringify(report, null, 2)}\n`);
}

/** @param {AsyncIterable<any>} events */
export default async function* reporter(events) {
  const Spec = /** @type {any} */ (spec);
  yield* Readable.from(withReport(events)).pipe(new Spec());
}
