/** The kernels in Chromium: every instruction set and activation mode against float64, without a bundler. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { activations } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { referenceTypes } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';

const skip = skipWithoutChromium();
const shapes = [
  { nRows: 7, nCols: 512, nTokens: 1 },
  { nRows: 9, nCols: 1280, nTokens: 6 },
];
const variants = [
  { isa: 'scalar' },
  { isa: 'simd128' },
  { isa: 'relaxed', dot: 'i16' },
  { isa: 'relaxed', dot: 'i32' },
];

const base64 = (/** @type {ArrayBufferView} */ view) =>
  Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('base64');
const floats = (/** @type {string} */ text) =>
  new Float32Array(Uint8Array.from(Buffer.from(text, 'base64')).buffer);

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serveFolder>>} */
let server;
/** @type {Awaited<ReturnType<typeof openPage>>} */
let opened;

before(async () => {
  if (skip) return;
  server = await serveFolder(projectRoot);
  browser = await launchChromium();
  opened = await openPage(browser, `${server.url}tests/browser/fixtures/kernels.html`);
  await opened.page.waitForFunction('globalThis.libraryReady === true');
});

after(async () => {
  await browser?.close();
  await server?.close();
});

function makeCases() {
  const prng = new Prng(20240607);
  return referenceTypes.flatMap((type) =>
    shapes.flatMap(({ nRows, nCols, nTokens }) => {
      const weights = makeWeights(type, 'natural', nRows, nCols, prng);
      const x = activations.gaussian(nTokens, nCols, prng);
      const product = new ReferenceProduct(new ReferenceWeight(type, weights, nRows, nCols), x, nTokens);
      return ACTIVATION_NAMES.map((activation) => ({
        product,
        sent: { type: type.name, nRows, nCols, weights: base64(weights), x: base64(x), activation },
      }));
    }),
  );
}

for (const { isa, dot } of variants) {
  test(`Chromium, ${[isa, dot].filter(Boolean).join(' ')}: every type and activation mode against float64`, {
    skip,
  }, async () => {
    const served = await opened.page.evaluate(
      "import('/js/index.js').then(({ types }) => types.filter((t) => t.served).map((t) => t.name))",
    );
    const cases = makeCases().filter(({ sent }) => /** @type {string[]} */ (served).includes(sent.type));
    assert.ok(cases.some(({ sent }) => sent.type === 'Q4_K'));
    const args = { isa, dot, cases: cases.map(({ sent }) => sent) };
    const answer = await opened.page.evaluate(
      (/** @type {any} */ given) => /** @type {any} */ (globalThis).runKernels(given),
      args,
    );
    assert.equal(answer.isa, isa);
    if (dot) assert.equal(answer.dot, dot);
    assert.deepEqual(answer.left, { weights: 0, tensors: 0, handles: 0 });
    for (const [i, { product, sent }] of cases.entries()) {
      const { served: servedBy, first, last } = answer.results[i];
      const what = `${isa} ${dot ?? ''} ${sent.type} ${sent.nRows}x${sent.nCols} ${sent.activation}`;
      product.check(floats(first), { activation: ACTIVATION_NAMES.indexOf(servedBy.activation), what });
      assert.equal(last, first, `${what}: the optimised code gives other bits than the first call`);
    }
  });
}

test('Chromium: nothing was reported on the console and nothing fetched from elsewhere', { skip }, (t) => {
  t.diagnostic(`ran: every instruction set in Chromium ${browser.version()}`);
  assert.deepEqual(opened.problems, []);
});
