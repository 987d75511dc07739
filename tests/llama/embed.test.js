/**
 * Embeddings as the file asks for them: which hidden states (pooling), which tokens (BOS, EOS), and
 * which of them see which (causal or not). The reference is the forward pass of the synthetic
 * models in float64, pooled here, and llama.cpp for a model of the test data.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Context } from '../../js/llama/context.js';
import { embedTexts } from '../../js/llama/embedding.js';
import { ArgumentError, ContextError, Llama, ModelError } from '../../js/llama/index.js';
import { rankDocuments } from '../../js/llama/ranking.js';
import { distance } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { Pair } from '../helpers/gguf-bytes.js' */
/** @import { Spec } from '../helpers/synthetic-llama.js' */

const exact = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
const [BOS, EOS] = [1, 2];
const POOLING_TYPES = { none: 0, mean: 1, cls: 2, last: 3, rank: 4 };

/** @param {number[]} letters  token ids in the synthetic vocabulary */
const textOf = (letters) => String.fromCharCode(...letters.map((token) => 0x4e00 + token));
const LETTERS = [8, 30, 11, 8, 25];

/** @param {string} key @param {Pair[1]} type @param {any} value @returns {Record<string, Pair>} */
const pair = (key, type, value) => ({ [key]: [key, type, value] });
/** @param {string} architecture @param {number} id @param {boolean} [addEos] */
const asking = (architecture, id, addEos = false) => ({
  ...pair(`${architecture}.pooling_type`, 'u32', id),
  ...(addEos ? pair('tokenizer.ggml.add_eos_token', 'bool', true) : {}),
});

/** @param {number[]} vector */
const unit = (vector) => vector.map((value) => value / Math.hypot(...vector));
/** @type {Record<string, (rows: number[][]) => number[]>} */
const POOL = {
  none: (rows) => rows.flatMap(unit),
  mean: (rows) => unit(rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length)),
  cls: (rows) => unit(rows[0]),
  last: (rows) => unit(/** @type {number[]} */ (rows.at(-1))),
};

/**
 * @param {import('node:test').TestContext} t @param {Spec} spec
 * @param {import('../../js/llama/index.js').LlamaOptions} [options]
 */
async function open(t, spec, options) {
  const made = makeModel(spec);
  const model = await Llama.load(made.bytes.buffer, { ...exact, ...options });
  t.after(() => model.dispose());
  return { made, model };
}

/** @param {ArrayLike<number>} got @param {ArrayLike<number>} expected @param {string} what */
function checkVector(got, expected, what) {
  const { max, cosine } = distance(got, expected);
  assert.ok(max < 1e-5 && 1 - cosine < 1e-9, `${what}: largest difference ${max}, cosine ${cosine}`);
}

for (const architecture of ['llama', 'qwen2', 'qwen3']) {
  for (const causal of [true, false]) {
    for (const addEos of [false, true]) {
      const name = `${architecture}, ${causal ? 'causal' : 'not causal'}, ${addEos ? 'EOS' : 'no EOS'}`;
      test(`embed: each pooling, ${name}`, async (t) => {
        const tokens = addEos ? [BOS, ...LETTERS, EOS] : [BOS, ...LETTERS];
        for (const [pooling, pool] of Object.entries(POOL)) {
          const id = /** @type {Record<string, number>} */ (POOLING_TYPES)[pooling];
          const { made, model } = await open(t, {
            architecture,
            causal,
            pairs: asking(architecture, id, addEos),
          });
          assert.deepEqual(model.tokenize(textOf(LETTERS)), tokens);
          assert.deepEqual([model.info.causal, model.info.tokenizer.addEos], [causal, addEos]);
          const hidden = made.hidden(tokens);
          checkVector(await model.embed(textOf(LETTERS)), pool(hidden), pooling);
          // The option takes precedence over the file.
          const other = pooling === 'last' ? 'cls' : 'last';
          checkVector(await model.embed(textOf(LETTERS), { pooling: other }), POOL[other](hidden), other);
        }
      });
    }
  }
}

for (const causal of [true, false]) {
  test(`embed: texts longer than a batch, ${causal ? 'causal' : 'not causal'}`, async (t) => {
    const small = { nEmbd: 16, nFf: 16, nHeads: 2, nKvHeads: 1, nLayers: 2, context: 700 };
    // More values in all heads together than in a hidden state, and fewer.
    for (const headSize of [16, 4]) {
      const spec = { ...small, headSize, causal, seed: headSize, pairs: asking('llama', 1, true) };
      const { made, model } = await open(t, spec);
      const letters = Array.from({ length: 550 }, (_, i) => 3 + ((i * i) % 37));
      const tokens = [BOS, ...letters, EOS];
      assert.ok(tokens.length > 512, 'more than the largest block');
      assert.equal(model.info.batch, causal ? 512 : 700, 'a batch is the whole text where it must be');
      const [hidden, after] = [made.hidden(tokens), made.hidden([BOS, 9, 7, EOS])];
      for (const [name, pool] of Object.entries(POOL)) {
        const pooling = /** @type {import('../../js/llama/index.js').Pooling} */ (name);
        checkVector(await model.embed(textOf(letters), { pooling }), pool(hidden), name);
        // A short text after a long one sees nothing of it.
        checkVector(await model.embed(textOf([9, 7]), { pooling }), pool(after), `${name}, after`);
      }
    }
  });
}

test('embed: the memory of a model whose attention is not causal is what it says', async (t) => {
  const spec = { context: 2000, nEmbd: 64 };
  const [causal, whole] = [await open(t, spec), await open(t, { ...spec, causal: false })];
  const before = whole.model.kernels.memory();
  const { workspace } = whole.model.info.memory;
  assert.equal(workspace - causal.model.info.memory.workspace, (2000 - 512) * 4 * (64 + 64));
  await whole.model.embed(textOf(Array.from({ length: 1900 }, () => 5)));
  const { tensors, handles } = whole.model.kernels.memory();
  assert.deepEqual([tensors, handles], [before.tensors, before.handles]);
});

test('embed: no pooling type means the mean, and those that are none are named', async (t) => {
  const { made, model } = await open(t, {});
  const mean = POOL.mean(made.hidden([BOS, ...LETTERS]));
  checkVector(await model.embed(textOf(LETTERS)), mean, 'nothing said');
  const unsaid = await open(t, { pairs: pair('llama.pooling_type', 'i32', -1) });
  checkVector(await unsaid.model.embed(textOf(LETTERS)), mean, '-1');

  const rank = await open(t, { pairs: asking('llama', POOLING_TYPES.rank) });
  const refused = (/** @type {RegExp} */ message) => (/** @type {Error} */ error) =>
    error instanceof ModelError && message.test(error.message);
  await assert.rejects(
    rank.model.embed('a'),
    refused(/"llama\.pooling_type" is 4 \(rank: .*none, mean, cls, last/),
  );
  checkVector(await rank.model.embed(textOf(LETTERS), { pooling: 'mean' }), mean, 'asked for');
  for (const value of [5, 1.5]) {
    const strange = await open(t, { pairs: pair('llama.pooling_type', 'f32', value) });
    await assert.rejects(strange.model.embed('a'), refused(new RegExp(`is ${value}; supported are`)));
  }
  const named = await open(t, { pairs: pair('llama.pooling_type', 'string', 'mean') });
  await assert.rejects(named.model.embed('a'), refused(/is "mean"; supported are/));
  await assert.rejects(open(t, { pairs: pair('llama.attention.causal', 'u32', 0) }), /true or false, got 0/);
});

test('embed: options, and vectors that are not scaled', async (t) => {
  const { made, model } = await open(t, { pairs: asking('llama', POOLING_TYPES.last) });
  const raw = await model.embed(textOf(LETTERS), { normalize: false });
  const hidden = made.hidden([BOS, ...LETTERS]);
  const last = /** @type {number[]} */ (hidden.at(-1));
  assert.ok(distance(raw, last).max < 1e-4);
  const mean = last.map((_, i) => hidden.reduce((sum, row) => sum + row[i], 0) / hidden.length);
  const got = await model.embed(textOf(LETTERS), { pooling: 'mean', normalize: false });
  assert.ok(distance(got, mean).max < 1e-4);
  const bad = (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(
      model.embed('a', options),
      (error) => error instanceof ArgumentError && message.test(error.message),
    );
  await bad({ pooling: 'rank' }, /pooling must be one of none, mean, cls, last, got "rank"/);
  await bad({ pooling: 1 }, /pooling must be one of/);
  await bad({ normalize: 1 }, /normalize must be true or false, got 1/);
  await bad({ normalise: true }, /no option "normalise"; options are pooling, normalize, dimensions, signal/);
});

test('embed: EOS ends texts but not prompts, once', async (t) => {
  const { model } = await open(t, { pairs: asking('llama', 3, true) });
  assert.deepEqual(model.tokenize(textOf([5])), [BOS, 5, EOS]);
  assert.deepEqual(model.tokenize(textOf([5]), { eos: false }), [BOS, 5]);
  assert.deepEqual(model.tokenize(`<s>${textOf([5])}</s>`), [BOS, 5, EOS], 'a text that has them');
  assert.deepEqual(model.tokenize(''), [BOS, EOS]);
  const run = model.generate(textOf([5, 6]), { temperature: 0, maxTokens: 4, ignoreEnd: true });
  await run.text();
  assert.equal(run.stats.promptTokens, 3);
  const plain = await open(t, {});
  const other = plain.model.generate(textOf([5, 6]), { temperature: 0, maxTokens: 4, ignoreEnd: true });
  await other.text();
  assert.deepEqual(run.tokens, other.tokens);
  assert.deepEqual(plain.model.tokenize(textOf([5]), { eos: true }), [BOS, 5, EOS]);
  // The same token begins and ends texts, and both are there.
  const one = await open(t, {
    pairs: { ...asking('llama', 3, true), ...pair('tokenizer.ggml.eos_token_id', 'u32', BOS) },
  });
  assert.deepEqual(one.model.tokenize(''), [BOS, BOS]);
  assert.deepEqual(one.model.tokenize(textOf([5])), [BOS, 5, BOS]);
});

test('embed: a model whose attention is not causal writes no text, and says so', async (t) => {
  const { model } = await open(t, { architecture: 'qwen3', causal: false });
  const refused = (/** @type {Error} */ error) =>
    error instanceof ModelError &&
    /this qwen3 model embeds texts and writes none, .*use embed/.test(error.message);
  assert.throws(() => model.generate('a'), refused);
  await assert.rejects(
    model.chat([{ role: 'user', content: 'a' }], { template: '{{ messages[0].content }}' }),
    refused,
  );
  await assert.rejects(model.embed(textOf(Array.from({ length: 64 }, () => 4))), ContextError);
});

test('embed and rank: a device that is lost after the pooling is replaced', async () => {
  const nEmbd = 2;
  /** A device that doubles in products, and fails in the n-th; its hidden states are ones. */
  const deviceOf = (/** @type {number} */ failsIn) => {
    let n = 0;
    const backend = {
      multiply: async (/** @type {Float32Array} */ x) => {
        if (++n === failsIn) throw new Error(`lost in product ${failsIn}`);
        return x.map((value) => 2 * value);
      },
    };
    const decoder = {
      ...{ backend, batch: 8, forward: async () => {}, idle: async () => {} },
      turns: { take: (/** @type {unknown} */ _, /** @type {() => unknown} */ work) => work() },
      hidden: async (/** @type {number} */ _, /** @type {number} */ n) => new Float32Array(n * nEmbd).fill(1),
    };
    const byRole = { dense: [{ matrix: {} }, { matrix: {} }], ranker: { output: {} } };
    return /** @type {any} */ ({ backend, decoder, weights: { byRole } });
  };
  const pace = /** @type {any} */ ({ check() {} });
  const open = (/** @type {number[]} */ ...failures) => {
    const [first, ...others] = failures.map(deviceOf);
    const context = new Context(first.decoder, 8);
    const parts = {
      ...{ ...first, context, metadata: {}, tokenizer: { encode: () => [1, 2, 3] } },
      plan: { nEmbd, dense: [2, 2], ranker: { pooling: 'cls', softmax: false } },
    };
    const { length } = others;
    context.keeper = {
      isLoss: (error) => others.length > 0 && /^lost/.test(/** @type {Error} */ (error).message),
      async replace() {
        Object.assign(parts, others.shift());
        return parts.decoder;
      },
    };
    return { parts, context, replaced: () => length - others.length };
  };
  const embed = (/** @type {any} */ parts) =>
    embedTexts(parts, ['a', 'b'], { normalize: false }, pace, /** @type {any} */ ({}));
  const rank = (/** @type {any} */ parts) =>
    rankDocuments(parts, 'a', ['b', 'c'], pace, /** @type {any} */ ({}));

  // Products of a text: two, all of which are done again.
  for (const failures of [
    [2, 0],
    [3, 0],
    [1, 2, 0],
  ]) {
    const { parts, context, replaced } = open(...failures);
    assert.deepEqual(
      await embed(parts),
      [1, 2].map(() => Float32Array.of(4, 4)),
    );
    assert.equal(replaced(), failures.length - 1);
    assert.deepEqual([context.decoder, context.past], [parts.decoder, []]);
  }
  const { parts, replaced } = open(2, 0);
  assert.deepEqual([await rank(parts), replaced()], [[2, 2], 1]);
  await assert.rejects(embed(open(2).parts), /lost in product 2/);
  await assert.rejects(rank(open(2).parts), /lost in product 2/);
});

test('embed: a Qwen 3 embedding model, against llama.cpp', {
  skip: skipWithout('arch/logits/qwen3-embed-A.json'),
}, async (t) => {
  const reference = JSON.parse(readFileSync(dataPath('arch/logits/qwen3-embed-A.json'), 'utf8'));
  const bytes = readFileSync(dataPath('arch/logits/qwen3-embed-A.embd.f32'));
  const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const model = await Llama.load(dataPath('arch/models/qwen3-embed-A.gguf'), exact);
  t.after(() => model.dispose());
  const rows = (/** @type {number} */ at, /** @type {number} */ n) => all.subarray(at, at + n);
  for (const { text, tokens, embedding_offset: at } of reference.texts) {
    assert.deepEqual(model.tokenize(text), tokens);
    const expected = rows(at, reference.n_embd_out);
    const { cosine } = distance(await model.embed(String(text)), expected);
    assert.ok(1 - cosine < 1e-5, `${text}: cosine ${cosine}`);
    const { max } = distance(await model.embed(String(text), { normalize: false }), expected);
    assert.ok(max < 2e-4, `${text}: largest difference ${max}`);
  }
  const { text, offset, n_pos: n, n_embd: size } = reference.token_embeddings;
  const got = await model.embed(String(reference.texts[text].text), { pooling: 'none', normalize: false });
  assert.ok(distance(got, rows(offset, n * size)).max < 2e-4);
});
