/**
 * Unknown options: every public function that takes an object refuses them, and names the existing
 * options and the most similar one. Known options may be undefined.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { checkNames } from '../../js/checks.js';
import * as library from '../../js/llama/index.js';
import { METHODS, optionsOf } from '../../js/worker/methods.js';
import { floats } from '../helpers/changed-gguf.js';
import { sampleGguf } from '../helpers/gguf-bytes.js';
import { TINY_TALES } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { workerKernels } from '../helpers/workers.js';

const { ArgumentError, createKernels, createWorkerKernels, createWorkerLlama, GgufFile, Llama, openGguf } =
  library;

const ramp = (/** @type {number} */ length) => Float32Array.from({ length }, (_, i) => (i % 7) - 3);
const oneHead = { alpha: ramp(1), beta: ramp(1), dtBias: ramp(1), a: ramp(1) };
const square = { type: 'F32', nRows: 32, nCols: 32, data: ramp(1024) };

/**
 * A call with options: `near` is a misspelt name and the correct one; `kind` is what the message
 * calls the names; `base` has the required options.
 * @typedef {{ call: (k: any, h: any, options: any) => any, near: [string, string], kind?: string,
 *   base?: object }} Case
 */

/** One token with one expert of one. */
const ROUTING = {
  ...{ nTokens: 1, rows: new Uint32Array(1), ends: Uint32Array.of(1), weights: Float32Array.of(1) },
};

/** Operations of kernels, in this thread or in a worker. @type {Record<string, Case>} */
const OPERATIONS = {
  fusedMatmul: { call: (k, h, o) => k.fusedMatmul(h.w, ramp(32), o), near: ['actvation', 'activation'] },
  dequantize: { call: (k, h, o) => k.dequantize(h.w, o), near: ['strat', 'start'] },
  rmsNorm: { call: (k, _, o) => k.rmsNorm(ramp(32), null, o), near: ['epps', 'eps'] },
  layerNorm: { call: (k, _, o) => k.layerNorm(ramp(32), null, null, o), near: ['Eps', 'eps'] },
  softmax: { call: (k, _, o) => k.softmax(ramp(32), o), near: ['ncols', 'nCols'] },
  rope: {
    call: (k, h, o) => k.rope(h.t, o),
    near: ['head_size', 'headSize'],
    base: { headSize: 16 },
  },
  embed: { call: (k, h, o) => k.embed(h.w, [1, 2], o), near: ['outt', 'out'] },
  add: { call: (k, _, o) => k.add(ramp(32), ramp(32), o), near: ['ou', 'out'] },
  addScaled: { call: (k, _, o) => k.addScaled(ramp(32), ramp(32), 2, o), near: ['outs', 'out'] },
  scale: { call: (k, _, o) => k.scale(ramp(32), 2, o), near: ['Out', 'out'] },
  gated: { call: (k, _, o) => k.gated(ramp(32), ramp(32), o), near: ['acts', 'act'] },
  multiply: { call: (k, _, o) => k.multiply(ramp(32), ramp(32), o), near: ['outs', 'out'] },
  causalConv: {
    call: (k, _, o) => k.causalConv(ramp(32), ramp(24), ramp(16), o),
    near: ['bais', 'bias'],
  },
  fusedMatmulMany: {
    call: (k, h, o) => k.fusedMatmulMany([h.w], ramp(32), o),
    near: ['activate', 'activation'],
  },
  fusedRmsNormMatmul: {
    call: (k, h, o) => k.fusedRmsNormMatmul([h.w], ramp(32), null, o),
    near: ['activations', 'activation'],
  },
  fusedSwigluMatmul: {
    call: (k, h, o) => k.fusedSwigluMatmul(h.w, ramp(32), ramp(32), o),
    near: ['activaton', 'activation'],
  },
  fusedFfn: {
    call: (k, h, o) => k.fusedFfn({ gate: h.w, up: h.w, down: h.w }, ramp(32), o),
    near: ['residuals', 'residual'],
  },
  route: {
    call: (k, _, o) => k.route(ramp(32), o),
    near: ['normalise', 'normalize'],
    base: { nExperts: 8, nUsed: 2 },
  },
  fusedMatmulExperts: {
    call: async (k, h, o) => k.fusedMatmulExperts([h.w], ramp(32), ROUTING, o),
    near: ['bias', 'biases'],
  },
  mixRows: { call: (k, _, o) => k.mixRows(ramp(32), ROUTING, o), near: ['outt', 'out'] },
  fusedAttentionScore: {
    call: (k, _, o) => k.fusedAttentionScore(ramp(32), ramp(32), o),
    near: ['casual', 'causal'],
    base: { headSize: 32 },
  },
  deltaNet: {
    call: (k, h, o) => k.deltaNet(ramp(3 * 8), oneHead, h.state, o),
    near: ['normWeights', 'normWeight'],
  },
  ssmScan: {
    call: (k, h, o) =>
      k.ssmScan(ramp(96), { dt: ramp(1), dtBias: ramp(1), a: ramp(1), d: ramp(1) }, h.scanState, o),
    near: ['ngroups', 'nGroups'],
  },
  flashAttention: {
    call: (k, h, o) => k.flashAttention(h.t, h.cache, h.cache, o),
    near: ['softCap', 'softcap'],
  },
};

/** Objects that describe what to make or choose. @type {Record<string, Case>} */
const DESCRIPTIONS = {
  select: { call: (k, _, o) => k.select(o), near: ['ISA', 'isa'] },
  weight: { call: (k, _, o) => k.weight(o), near: ['dta', 'data'], kind: 'field', base: square },
  tensor: {
    call: (k, _, o) => k.tensor(o),
    near: ['date', 'data'],
    kind: 'field',
    base: { nRows: 1, nCols: 2 },
  },
  kvCache: {
    call: (k, _, o) => k.kvCache(o),
    near: ['tpye', 'type'],
    kind: 'field',
    base: { nPositions: 2, nKvHeads: 1, headSize: 16 },
  },
  fusedDequantMatmulQ4KLegacy: {
    call: (k, _, o) => k.fusedDequantMatmulQ4KLegacy(o, ramp(256)),
    near: ['scale', 'scales'],
    kind: 'field',
    base: { data: new Uint8Array(140), scales: new Float32Array(1), nRows: 1, nCols: 256 },
  },
  'the gates of deltaNet': {
    call: (k, h, o) => k.deltaNet(ramp(3 * 8), { ...oneHead, ...o }, h.state),
    near: ['dtBiases', 'dtBias'],
    kind: 'gate',
  },
  'the weights of fusedFfn': {
    call: (k, h, o) => k.fusedFfn({ gate: h.w, up: h.w, down: h.w, ...o }, ramp(32)),
    near: ['nrom', 'norm'],
    kind: 'weight',
  },
};

const LOADING = /** @type {Record<string, Case>} */ ({
  loadWeight: { call: (k, h, o) => k.loadWeight(h.gguf, h.name, o), near: ['progress', 'onProgress'] },
  loadWeights: { call: (k, h, o) => k.loadWeights(h.gguf, [h.name], o), near: ['concurency', 'concurrency'] },
});

/** Methods of kernels that take no object. */
const WITHOUT = ['constructor', 'dispose', 'memory', 'quantize', 'servedBy'];

/**
 * Checks that a call refuses an unknown option, and takes undefined for each option.
 * @param {string} what @param {Case} one @param {any} k @param {any} h
 */
async function check(what, { call, near: [slip, meant], kind = 'option', base = {} }, k, h) {
  const refusal = async (/** @type {any} */ options) => {
    try {
      await call(k, h, options);
    } catch (error) {
      assert.ok(error instanceof ArgumentError, `${what}: ${error}`);
      return error.message;
    }
    return assert.fail(`${what} took ${JSON.stringify(options)}`);
  };
  const message = await refusal({ ...base, [slip]: undefined });
  const list = new RegExp(
    `^there is no ${kind} "${slip}"; ${kind}s are ([\\w, ]+); did you mean "${meant}"\\?$`,
  );
  const names = list.exec(message)?.[1].split(', ') ?? assert.fail(`${what}: ${message}`);
  assert.ok(names.includes(meant), message);
  assert.match(await refusal({ ...base, zzzzzzzzzzzz: 1 }), /"zzzzzzzzzzzz".*[^?]$/, what);
  if (what.startsWith('the ')) return;
  for (const none of [null, 5, 'text', [1]]) assert.match(await refusal(none), /must be an object/, what);
  await call(k, h, { ...Object.fromEntries(names.map((name) => [name, undefined])), ...base });
}

/** @type {any} */
let fm;
/** @type {any} */
let handles;
/** @type {import('../../js/llama/index.js').Llama} */
let model;

/** @param {any} k */
async function handlesOf(k) {
  const gguf = await openGguf(sampleGguf().bytes);
  const [name] = [...gguf.tensors.values()].filter(({ supported }) => supported).map((tensor) => tensor.name);
  const cache = await k.kvCache({ nPositions: 4, nKvHeads: 2, headSize: 16 });
  const [t, state] = [await k.tensor({ nRows: 1, nCols: 32 }), await k.tensor({ nRows: 8, nCols: 8 })];
  const scanState = await k.tensor({ nRows: 32, nCols: 32 });
  return { w: await k.weight(square), t, state, scanState, cache, gguf, name };
}

before(async () => {
  fm = await createKernels({ threads: 1 });
  handles = await handlesOf(fm);
  model = await Llama.load(TINY_TALES, { kernels: fm });
});
after(() => {
  model?.dispose();
  fm?.dispose();
});

test('options: every operation of kernels', async () => {
  /** @type {string[]} */
  const methods = [];
  for (let at = Object.getPrototypeOf(fm); at !== Object.prototype; at = Object.getPrototypeOf(at))
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at)))
      if (typeof value === 'function') methods.push(name);
  const cases = { ...OPERATIONS, ...DESCRIPTIONS, ...LOADING };
  const missing = [...new Set(methods)].filter((name) => !(name in cases) && !WITHOUT.includes(name));
  assert.deepEqual(missing, []);
  for (const [what, one] of Object.entries(cases)) await check(what, one, fm, handles);
});

test('options: a GgufTensor describes a weight as it is', async () => {
  const { gguf, name } = handles;
  const w = fm.weight({ ...gguf.tensor(name), data: await gguf.read(name) });
  assert.equal(w.name, name);
  w.free();
});

test('options: every call into a worker, its own and those of every call', async (t) => {
  const k = await workerKernels(t, { threads: 1 });
  const h = await handlesOf(k);
  for (const [what, one] of Object.entries({ ...OPERATIONS, ...DESCRIPTIONS, ...LOADING }))
    await check(what, one, k, h);
  const never = Symbol('never called');
  for (const [method, at] of Object.entries(METHODS)) {
    const args = Array.from({ length: at }, () => never);
    for (const [slip, meant] of [
      ['sginal', 'signal'],
      ['transfers', 'transfer'],
    ]) {
      await assert.rejects(
        /** @type {any} */ (k)[method](...args, { [slip]: undefined }),
        (/** @type {Error} */ { message }) =>
          message.includes(`"${slip}"`) && message.endsWith(`did you mean "${meant}"?`),
        method,
      );
    }
  }
  // The list that the caller of a worker sees: the operation's own options, and those of every
  // call.
  for (const [
    what,
    {
      call,
      near: [slip],
    },
  ] of Object.entries(OPERATIONS)) {
    const namesOf = async (/** @type {any} */ kernels, /** @type {any} */ own) => {
      const error = await (async () => call(kernels, own, { [slip]: 1 }))().catch(
        (/** @type {Error} */ caught) => caught,
      );
      return /options are ([\w, ]+)/.exec(error.message)?.[1].split(', ');
    };
    const here = await namesOf(fm, handles);
    assert.deepEqual(await namesOf(k, h), [...(here ?? []), 'signal', 'transfer'], what);
    assert.deepEqual(optionsOf(/** @type {any} */ (what)), [...(here ?? []), 'signal', 'transfer'], what);
  }
  await check('set', { call: (_, own, o) => own.t.set(ramp(32), 0, o), near: ['transfr', 'transfer'] }, k, h);
  await check('toArray', { call: (_, own, o) => own.t.toArray(o), near: ['singal', 'signal'] }, k, h);
  await check(
    'write',
    { call: (_, own, o) => own.cache.write(ramp(32), 0, o), near: ['signals', 'signal'] },
    k,
    h,
  );
  await check(
    'sequence',
    { call: (_, __, o) => k.sequence(() => {}, o), near: ['abortSignal', 'signal'] },
    k,
    h,
  );
  await check(
    'a step of a sequence',
    { call: (_, own, o) => k.sequence((ops) => ops.fusedMatmul(own.w, ramp(32), o)), near: ['outs', 'out'] },
    k,
    h,
  );
});

test('options: making kernels, and the modules they are made of', async () => {
  const make =
    (/** @type {any} */ create) =>
    async (/** @type {any} */ _, /** @type {any} */ __, /** @type {any} */ options) =>
      (await create(options)).dispose();
  await check('createKernels', { call: make(createKernels), near: ['thread', 'threads'] }, fm, handles);
  await check(
    'createWorkerKernels',
    { call: make(createWorkerKernels), near: ['workr', 'worker'] },
    fm,
    handles,
  );
  await assert.rejects(
    createKernels(/** @type {any} */ ({ wasm: { simd128: new Uint8Array(8), relaxd: new Uint8Array(8) } })),
    /there is no module "relaxd"; modules are .*; did you mean "relaxed"\?/,
  );
});

test('options: files', async () => {
  const open = async (/** @type {any} */ _, /** @type {any} */ __, /** @type {any} */ options) =>
    (await openGguf(sampleGguf().bytes, options)).close();
  await check('openGguf', { call: open, near: ['retris', 'retries'] }, fm, handles);
  await check('read', { call: (_, h, o) => h.gguf.read(h.name, o), near: ['signl', 'signal'] }, fm, handles);
  await check(
    'stream',
    {
      call: async (_, h, o) => {
        for await (const chunk of h.gguf.stream(h.name, o)) assert.ok(chunk.length > 0);
      },
      near: ['signaal', 'signal'],
    },
    fm,
    handles,
  );
  const methods = Object.getOwnPropertyNames(GgufFile.prototype).filter((name) => name !== 'constructor');
  assert.deepEqual(methods.sort(), ['byteLength', 'cached', 'close', 'read', 'stream', 'tensor']);
  for (const call of [
    (/** @type {any} */ cache) => library.listCachedGgufs(cache),
    (/** @type {any} */ cache) => library.clearCachedGgufs(cache),
    (/** @type {any} */ cache) => library.deleteCachedGguf('https://example.com/a.gguf', cache),
  ])
    await assert.rejects(
      call({ cache: 'mine' }),
      (error) => error instanceof ArgumentError && /name of a cache/.test(error.message),
    );
});

test('options: models', async (t) => {
  const made = makeModel({
    architecture: 'qwen3',
    change: (tensors) => [...tensors, floats('cls.output.weight', [64, 1], ramp(64))],
  });
  const ranker = await Llama.load(made.bytes.buffer, { threads: 1 });
  t.after(() => ranker.dispose());
  const context = await model.context();
  const saved = await context.save();
  context.dispose();
  const messages = [{ role: 'user', content: 'Hi' }];
  const template = '{{ messages[0].content }}';
  /** @type {Record<string, Case>} */
  const cases = {
    load: {
      call: async (_, __, o) => (await Llama.load(TINY_TALES, o)).dispose(),
      near: ['contextSize', 'contextLength'],
      base: { threads: 1 },
    },
    createWorkerLlama: {
      call: async (_, __, o) => (await createWorkerLlama(TINY_TALES, o)).dispose(),
      near: ['Worker', 'worker'],
      base: { threads: 1 },
    },
    generate: { call: (_, __, o) => model.generate('Once', o), near: ['max_tokens', 'maxTokens'] },
    chat: {
      call: (_, __, o) => model.chat(messages, o),
      near: ['templates', 'template'],
      base: { template },
    },
    formatChat: {
      call: (_, __, o) => model.formatChat(messages, o),
      near: ['addGenerationPromt', 'addGenerationPrompt'],
      base: { template },
    },
    logits: { call: (_, __, o) => model.logits([1], o), near: ['sginal', 'signal'] },
    embed: { call: (_, __, o) => model.embed('a', o), near: ['Signal', 'signal'] },
    context: {
      call: async (_, __, o) => (await model.context(o)).dispose(),
      near: ['contextSize', 'contextLength'],
    },
    restoreContext: {
      call: async (_, __, o) => (await model.restoreContext(saved, o)).dispose(),
      near: ['sinal', 'signal'],
    },
    rank: { call: (_, __, o) => ranker.rank('a', ['b'], o), near: ['sgnal', 'signal'] },
    tokenize: { call: (_, __, o) => model.tokenize('a', o), near: ['specials', 'special'] },
    detokenize: { call: (_, __, o) => model.detokenize([1], o), near: ['special_', 'special'] },
  };
  const isMethod = (/** @type {string} */ name) =>
    typeof Object.getOwnPropertyDescriptor(Llama.prototype, name)?.value === 'function';
  const methods = Object.getOwnPropertyNames(Llama.prototype).filter(isMethod);
  const missing = methods.filter(
    (name) => !(name in cases) && !['constructor', 'dispose', 'stop'].includes(name),
  );
  assert.deepEqual(missing, []);
  for (const [what, one] of Object.entries(cases)) await check(what, one, fm, handles);
});

test('options: every function that is exported is known here', () => {
  const functions = Object.entries(library)
    .filter(([, value]) => typeof value === 'function' && !/^class/.test(String(value)))
    .map(([name]) => name);
  const known = ['createKernels', 'createWorkerKernels', 'createWorkerLlama', 'openGguf'];
  const cache = ['clearCachedGgufs', 'deleteCachedGguf', 'listCachedGgufs'];
  assert.deepEqual(functions.sort(), [...known, ...cache].sort());
});

test('options: names that other code put on Object.prototype are no options', () => {
  const known = ['one', 'two'];
  Object.defineProperty(Object.prototype, 'polluted', { value: 1, enumerable: true, configurable: true });
  try {
    checkNames({ one: 1 }, known);
    assert.throws(() => checkNames({ three: 1 }, known), ArgumentError);
    fm.add(ramp(4), ramp(4), { out: new Float32Array(4) });
    fm.fusedMatmul(handles.w, ramp(32), { out: new Float32Array(32) });
  } finally {
    delete (/** @type {any} */ (Object.prototype).polluted);
  }
});
