/** How long the tasks of a page's own thread take, by a trace of Chromium's. */
import assert from 'node:assert/strict';

/** What a visitor may notice begins here, in milliseconds. */
export const LONG_TASK_MS = 50;

/** What longestTask needs in a trace. */
export const TRACED = ['toplevel', 'disabled-by-default-devtools.timeline', '__metadata'];

/**
 * Milliseconds of processor time of the longest task of the page's own thread: what it takes on a machine that nothing else keeps
 * busy. What the test asks of the page through the browser's inspector is none of the page's.
 * @param {Buffer} trace @param {string} url  of the page
 */
export function longestTask(trace, url) {
  const { traceEvents } = JSON.parse(trace.toString());
  // Chromium's own pages have renderers too.
  const ours = traceEvents.findLast(
    (/** @type {any} */ { name, args }) =>
      name === 'FrameCommittedInBrowser' && args.data.url.startsWith(url),
  );
  const main = traceEvents.find(
    (/** @type {any} */ { name, pid, args }) =>
      name === 'thread_name' && args.name === 'CrRendererMain' && pid === ours?.args.data.processId,
  );
  const own = traceEvents.filter(
    (/** @type {any} */ { pid, tid, tdur }) => pid === main?.pid && tid === main?.tid && tdur !== undefined,
  );
  const inspected = own.filter((/** @type {any} */ { args }) =>
    /DevToolsSession/.test(args?.chrome_mojo_event_info?.mojo_interface_tag),
  );
  const tasks = own.filter(
    (/** @type {any} */ { name, ts, dur }) =>
      /RunTask$/.test(name) &&
      !inspected.some((/** @type {any} */ inner) => inner.ts >= ts && inner.ts < ts + dur),
  );
  assert.ok(tasks.length > 50, `the trace has ${tasks.length} tasks`);
  return Math.max(...tasks.map((/** @type {any} */ { tdur }) => tdur / 1000));
}
