/** LoRA adapters of a model in a worker: their files are sent as the model's is, and give the same bits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWorkerLlama, Llama, ModelError, openGguf, ShapeError } from '../../js/llama/index.js';
import { makeAdapter } from '../helpers/adapters.js';
import { TOKENS } from '../helpers/llama.js';
import { startServer } from '../helpers/range-server.js';
import { makeModel } from '../helpers/synthetic-llama.js';

const OPTIONS = { threads: 1, contextLength: 32 };
const base = /** @type {ArrayBuffer} */ (makeModel({}).bytes.buffer);
const Q = 'blk.0.attn_q.weight';
const adapter = makeAdapter({ shapes: { [Q]: [64, 64], 'blk.1.ffn_up.weight': [64, 96] } });

test('adapters in a worker: from bytes, a URL, an open file, and a fetch of the caller', async (t) => {
  const server = await startServer(adapter, {});
  t.after(() => server.close());
  const here = await Llama.load(base, { ...OPTIONS, adapters: [{ source: adapter, scale: 0.5 }] });
  t.after(() => here.dispose());
  const expected = await here.logits(TOKENS);
  let fetched = 0;
  const counting = (/** @type {any} */ ...args) => {
    fetched++;
    return fetch(.../** @type {[any]} */ (args));
  };
  const open = await openGguf(adapter);
  for (const [what, source, options] of /** @type {[string, any, object?][]} */ ([
    ['bytes', adapter],
    ['a Blob', new Blob([adapter])],
    ['a URL', server.url],
    ['a URL, with fetch', server.url, { fetch: counting }],
    ['an open file', open],
    ['an open file beside an open file', open, { model: await openGguf(base) }],
  ])) {
    const { model: given = base, ...more } = /** @type {any} */ (options ?? {});
    const model = await createWorkerLlama(given, { ...OPTIONS, ...more, adapters: [{ source, scale: 0.5 }] });
    t.after(() => model.dispose());
    assert.deepEqual(await model.logits(TOKENS), expected, what);
    assert.deepEqual(model.info.adapters, here.info.adapters, what);
    await model.dispose();
  }
  assert.ok(fetched > 0, 'the fetch of the caller was used');
});

test('adapters in a worker: errors keep their class and numbers', async () => {
  const load = (/** @type {Uint8Array} */ source) =>
    createWorkerLlama(base, { ...OPTIONS, adapters: [{ source }] });
  await assert.rejects(load(makeAdapter({ shapes: { [Q]: [64, 48] } })), (error) => {
    assert.ok(error instanceof ShapeError && error.got === 48 && error.expected === 64, String(error));
    return true;
  });
  await assert.rejects(load(makeAdapter({ shapes: { [Q]: [64, 64] }, architecture: 'qwen2' })), ModelError);
});
