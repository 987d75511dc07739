/**
 * Models whose layers are divided among several backends: the same results as on one, whatever the
 * division; memory that is too small; layers that a device cannot compute; and faults.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ArgumentError,
  createKernels,
  GgufError,
  Llama,
  ModelError,
  NumericError,
  openGguf,
} from '../../js/llama/index.js';
import { planModel } from '../../js/llama/plan.js';
import { slicePlan } from '../../js/llama/plan-slice.js';
import { Sampler } from '../../js/llama/sampler.js';
import { openStages } from '../../js/llama/stages.js';
import { checkTensors } from '../../js/llama/weights.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { checkGreedy, close, GREEDY, SMALL_MODELS, TOKENS } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { BackendPart, LlamaOptions } from '../../js/llama/load-options.js' */
/** @import { Backend } from '../../js/backend.js' */

/** Float64 that is rounded to f32 where it crosses, in models of up to three crossings. */
const CROSSED = 1e-6;
/** As in tests/llama/architectures.test.js. */
const RELATIVE = 3e-5;

/** Divisions of layers: all in two, and one by one. @param {number} nLayers */
function divisions(nLayers) {
  const inTwo = Array.from({ length: nLayers - 1 }, (_, i) => [i + 1, nLayers - 1 - i]);
  return [...inTwo, ...(nLayers > 2 ? [Array.from({ length: nLayers }, () => 1)] : [])];
}

/** @param {readonly number[]} counts @returns {BackendPart[]} */
const onCpus = (counts) => counts.map((layers) => ({ backend: 'cpu', layers }));

/**
 * Loads to backends that the test makes.
 * @param {ArrayBuffer | string} source
 * @param {readonly BackendPart[]} list
 * @param {(part: BackendPart, i: number) => Backend | Promise<Backend>} make
 * @param {LlamaOptions} [options]
 * @param {boolean} [mayMoveAll]
 */
function loadTo(source, list, make, options = {}, mayMoveAll = true) {
  let i = 0;
  return Llama.loadTo(
    (_, facts) => openStages(list, facts, async (part) => make(part, i++), mayMoveAll),
    source,
    options,
  );
}

const arch = skipWithout('arch/models');
for (const name of ['llama-rope3-A', 'gemma3-A', 'qwen3-A', 'phi3-A', 'lfm2-A', 'gemma4-moe-A']) {
  test(`two and more CPUs give the bits of one, ${name}`, { skip: arch }, async () => {
    const path = dataPath(`arch/models/${name}.gguf`);
    const options = /** @type {const} */ ({ threads: 1, contextLength: 96 });
    const prng = new Prng(5);
    const tokens = Array.from({ length: 40 }, () => 3 + Math.floor(400 * prng.unit()));
    const results = async (/** @type {Llama} */ model) => {
      const logits = await model.logits(tokens);
      const greedy = model.generate(tokens.slice(0, 9), { temperature: 0, maxTokens: 12, ignoreEnd: true });
      await greedy.text();
      // The same beginning, and another end: the caches of all stages are rewound.
      const drawn = model.generate([...tokens.slice(0, 6), 7, 8, 9], {
        seed: 3,
        repeatPenalty: 1.3,
        maxTokens: 9,
        ignoreEnd: true,
      });
      await drawn.text();
      // In the middle of a text there are no states.
      assert.equal(drawn.stats.reusedTokens, name === 'lfm2-A' ? 0 : 6);
      const embedding = await model.embed('a dog in the park');
      return { logits, greedy: greedy.tokens, drawn: drawn.tokens, embedding };
    };
    const one = await Llama.load(path, options);
    const expected = await results(one);
    const { nLayers, tied } = one.info;
    one.dispose();
    for (const counts of divisions(nLayers)) {
      const model = await Llama.load(path, { ...options, backend: onCpus(counts) });
      assert.deepEqual(await results(model), expected, counts.join(' + '));
      const { backend, tied: isTied, memory } = model.info;
      const endOf = (/** @type {number} */ i) => counts.slice(0, i + 1).reduce((sum, n) => sum + n, 0);
      const layers = counts.map((n, i) => ({ backend: 'cpu', from: endOf(i) - n, to: endOf(i) }));
      assert.deepEqual(backend.layers, layers);
      assert.deepEqual([backend.name, isTied], ['cpu', tied]);
      assert.ok(memory.linear > memory.weights + memory.kvCache);
      model.dispose();
    }
  });
}

for (const name of ['bert-A', 'gemma-embedding-A']) {
  test(`two CPUs give the embeddings of one, ${name}`, { skip: arch }, async () => {
    const path = dataPath(`arch/models/${name}.gguf`);
    // One device computes both at once. Fewer than 4 tokens by themselves would have other bits.
    const texts = ['a dog in the park', 'the old dog'];
    const one = await Llama.load(path, { threads: 1 });
    const expected = await one.embed(texts);
    one.dispose();
    const two = await Llama.load(path, {
      threads: 1,
      backend: [{ backend: 'cpu', layers: 1 }, { backend: 'cpu' }],
    });
    assert.equal(two.info.backend.layers?.length, 2);
    assert.deepEqual(await two.embed(texts), expected);
    two.dispose();
  });
}

test('two CPUs give the scores of one', { skip: arch }, async () => {
  const prng = new Prng(11);
  const random = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => 0.2 * prng.gaussian());
  const tensors = [
    floats('cls.weight', [256, 256], random(256 * 256)),
    floats('cls.norm.weight', [256], random(256)),
    floats('cls.output.weight', [256, 1], random(256)),
  ];
  const metadata = { 'modern-bert.pooling_type': 4 };
  const bytes = await changedGguf(dataPath('arch/models/modern-bert-A.gguf'), { metadata, tensors });
  const one = await Llama.load(bytes, { threads: 1 });
  const expected = await one.rank('a dog', ['in the park', 'the']);
  one.dispose();
  const two = await Llama.load(bytes, {
    threads: 1,
    backend: [{ backend: 'cpu', layers: 1 }, { backend: 'cpu' }],
  });
  assert.deepEqual(await two.rank('a dog', ['in the park', 'the']), expected);
  two.dispose();
});

for (const [name, spec] of SMALL_MODELS) {
  test(`float64 and wasm, in turns: ${name}`, async () => {
    const made = makeModel({ ...spec, nLayers: 4 });
    const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
    const kernels = await createKernels({ threads: 1 });
    for (const turn of [0, 1]) {
      /** @type {Backend[]} */
      const backends = [];
      const make = (/** @type {unknown} */ _, /** @type {number} */ i) => {
        const backend =
          i % 2 === turn
            ? new ReferenceBackend()
            : new WasmBackend(kernels, { activation: 'f32', kvType: 'F32', ownsKernels: false });
        backends.push(backend);
        return backend;
      };
      const model = await loadTo(source, onCpus([1, 1, 2]), make, { kvType: 'F32', activation: 'f32' });
      close(await model.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
      if (spec.causal !== false) await checkGreedy(model, made, 4);
      assert.equal((await model.embed(model.detokenize(TOKENS.slice(1, 4)))).length, 64);
      model.dispose();
      for (const backend of backends) {
        if (!(backend instanceof ReferenceBackend)) continue;
        assert.ok(backend.disposed && backend.made.every(({ freed }) => freed), 'everything is freed');
      }
      assert.equal(kernels.memory().handles, 0, 'everything is given back');
    }
    const references = await loadTo(source, onCpus([2, 2]), () => new ReferenceBackend());
    close(await references.logits(TOKENS), made.logits(TOKENS), CROSSED, 'logits');
    references.dispose();
    kernels.dispose();
  });
}

test('a prompt of several batches, and the rest token by token', async () => {
  const { bytes } = makeModel({ context: 1500, nLayers: 3 });
  const source = /** @type {ArrayBuffer} */ (bytes.buffer);
  const tokens = Array.from({ length: 1100 }, (_, i) => 3 + ((i * i + (i >> 3)) % 37));
  const run = async (/** @type {LlamaOptions['backend']} */ backend) => {
    const model = await Llama.load(source, { threads: 1, contextLength: 1400, ...(backend && { backend }) });
    assert.ok(model.info.batch < 600);
    const text = model.generate(tokens, { temperature: 0, maxTokens: 20, ignoreEnd: true });
    await text.text();
    const logits = await model.logits(tokens);
    model.dispose();
    return { tokens: text.tokens, logits };
  };
  assert.deepEqual(await run(onCpus([1, 2])), await run(undefined));
});

test('numbers that are wrong: the layer, the part and the position, whichever stage finds them', async () => {
  const names = ['blk.0.ffn_down.weight', 'blk.1.attn_output.weight', 'blk.2.attn_k.weight', 'output.weight'];
  for (const broken of names) {
    const change = (/** @type {import('../helpers/gguf-bytes.js').TensorSpec[]} */ list) =>
      list.map((one) => {
        if (one.name !== broken) return one;
        const data = one.data.slice();
        new DataView(data.buffer).setFloat32(400, Number.NaN, true);
        return { ...one, data };
      });
    const source = /** @type {ArrayBuffer} */ (makeModel({ nLayers: 3, change }).bytes.buffer);
    const placeOf = async (/** @type {Llama} */ model) => {
      const places = [];
      for (let again = 0; again < 2; again++) {
        const error = await model.logits(TOKENS).catch((/** @type {unknown} */ caught) => caught);
        assert.ok(error instanceof NumericError, `${broken}: ${error}`);
        places.push([error.part, error.layer, error.position]);
      }
      model.dispose();
      return places;
    };
    const options = /** @type {const} */ ({ kvType: 'F32', activation: 'f32' });
    const expected = await placeOf(await Llama.load(source, { ...options, threads: 1 }));
    for (const counts of divisions(3)) {
      const cpus = await Llama.load(source, { ...options, threads: 1, backend: onCpus(counts) });
      assert.deepEqual(await placeOf(cpus), expected, `${broken}, ${counts.join(' + ')}`);
    }
  }
});

test('a stage that fails while others wait: the call rejects, and the next one works', async () => {
  const made = makeModel({ nLayers: 3 });
  const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
  for (const [failing, block] of /** @type {[number, 'feed' | 'read' | 'embed' | 'head'][]} */ ([
    [0, 'embed'],
    [0, 'read'],
    [1, 'feed'],
    [2, 'feed'],
    [2, 'head'],
  ])) {
    /** @type {ReferenceBackend[]} */
    const backends = [];
    const model = await loadTo(source, onCpus([1, 1, 1]), () => {
      backends.push(new ReferenceBackend());
      return /** @type {ReferenceBackend} */ (backends.at(-1));
    });
    const backend = /** @type {any} */ (backends[failing]);
    const kept = backend[block];
    let calls = 0;
    backend[block] = (/** @type {any[]} */ ...args) => {
      if (++calls === 2) throw new RangeError('this stage fails');
      return kept.apply(backend, args);
    };
    await assert.rejects(model.logits(TOKENS), /this stage fails/, `${block} of stage ${failing}`);
    close(await model.logits(TOKENS), made.logits(TOKENS), CROSSED, 'the next call');
    model.dispose();
  }
});

test('a model that is disposed while states cross ends the call, and frees everything', async () => {
  const source = /** @type {ArrayBuffer} */ (makeModel({ nLayers: 3 }).bytes.buffer);
  /** @type {ReferenceBackend[]} */
  const backends = [];
  const model = await loadTo(source, onCpus([1, 2]), () => {
    const backend = new ReferenceBackend();
    const { read } = backend;
    backend.read = async (...args) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return read.apply(backend, args);
    };
    backends.push(backend);
    return backend;
  });
  const running = model.logits(TOKENS);
  setTimeout(() => model.dispose(), 5);
  await assert.rejects(running, { name: 'HandleError', reason: 'disposed' });
  await new Promise((resolve) => setTimeout(resolve, 60));
  for (const backend of backends) assert.ok(backend.disposed && backend.made.every(({ freed }) => freed));
});

test('weights: progress of all stages together; after a failure none is left', async () => {
  const made = makeModel({ nLayers: 4, tied: true });
  const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
  /** @type {{ loaded: number, total: number }[]} */
  const steps = [];
  const onProgress = (/** @type {typeof steps[0]} */ step) => void steps.push(step);
  const model = await Llama.load(source, { backend: onCpus([1, 3]), threads: 1, onProgress });
  const { memory, tied } = model.info;
  assert.equal(tied, true);
  // Both stages have the embedding.
  const shared = 40 * 64 * 4;
  assert.ok(steps.every(({ total }) => total === memory.weights + shared));
  assert.ok(steps.every(({ loaded }, i) => loaded >= (steps[i - 1]?.loaded ?? 0)));
  assert.equal(steps.at(-1)?.loaded, steps.at(-1)?.total);
  model.dispose();

  const kernels = await createKernels({ threads: 1 });
  const make = () => new WasmBackend(kernels, { activation: 'int8', kvType: 'F16', ownsKernels: false });
  const controller = new AbortController();
  const abort = (/** @type {typeof steps[0]} */ { loaded, total }) => {
    if (loaded > total / 2) controller.abort(new Error('enough'));
  };
  const options = { onProgress: abort, signal: controller.signal };
  await assert.rejects(loadTo(source, onCpus([1, 3]), make, options), /enough/);
  assert.equal(kernels.memory().handles, 0);
  kernels.dispose();
});

test('numbers of layers that do not add up, with both numbers', async () => {
  const source = /** @type {ArrayBuffer} */ (makeModel({ nLayers: 4 }).bytes.buffer);
  const bad = (
    /** @type {BackendPart[]} */ backend,
    /** @type {Function} */ kind,
    /** @type {RegExp} */ message,
  ) =>
    assert.rejects(
      Llama.load(source, { backend, threads: 1, onProgress: () => assert.fail('weights were read') }),
      (error) => error instanceof kind && message.test(String(error)),
      String(message),
    );
  await bad(onCpus([1, 2]), ArgumentError, /take 3 layers, the model has 4/);
  await bad(onCpus([3, 2]), ArgumentError, /take 5 layers, the model has 4/);
  await bad(
    [{ backend: 'cpu', layers: 'fit', memoryBytes: 1 }],
    ModelError,
    /take 0 layers, the model has 4: the others/,
  );
  await bad(
    [{ backend: 'cpu', layers: 'fit' }, ...onCpus([5])],
    ArgumentError,
    /take 5 layers, the model has 4/,
  );
  // The rest may be nothing.
  const model = await Llama.load(source, { backend: [...onCpus([4]), { backend: 'cpu' }], threads: 1 });
  assert.deepEqual(model.info.backend, {
    name: 'cpu',
    reason: 'the option backend says so',
    steps: ['the CPU was opened', 'the CPU was opened'],
  });
  model.dispose();
});

test("'fit': as many layers as a number of bytes holds, then as the device has left", async () => {
  const made = makeModel({ nLayers: 4 });
  const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
  const gguf = await openGguf(source);
  const plan = planModel(gguf.metadata);
  const planned = checkTensors(gguf, plan);
  const kernels = await createKernels({ threads: 1 });
  const wasm = new WasmBackend(kernels, { activation: 'int8', kvType: 'F16', ownsKernels: true });
  /** Bytes of the first n layers, and of everything. @param {number} n @param {boolean} head */
  const bytesOf = (n, head) => {
    const slice = slicePlan(plan, planned, { from: 0, to: n, embedding: true, head });
    const { kvBytes, workspaceBytes } = wasm.sizes(slice.plan, { contextLength: 64, kvType: 'F16' });
    const weights = slice.tensors.reduce((sum, { name }) => sum + gguf.tensor(name).byteLength, 0);
    return weights + kvBytes + workspaceBytes;
  };
  const layersOf = async (/** @type {BackendPart[]} */ backend) => {
    const model = await Llama.load(source, { backend, threads: 1, kvType: 'F16' });
    const { layers, name } = model.info.backend;
    assert.equal(name, 'cpu');
    model.dispose();
    return layers?.map(({ to }) => to) ?? [4];
  };
  /** @param {number} memoryBytes @returns {BackendPart[]} */
  const fit = (memoryBytes) => [{ backend: 'cpu', layers: 'fit', memoryBytes }, { backend: 'cpu' }];
  assert.deepEqual(await layersOf(fit(bytesOf(2, false))), [2, 4]);
  assert.deepEqual(await layersOf(fit(bytesOf(3, false) - 1)), [2, 4]);
  assert.deepEqual(await layersOf(fit(bytesOf(1, false) - 1)), [4], 'none of them');
  assert.deepEqual(await layersOf(fit(bytesOf(4, true))), [4]);
  assert.deepEqual(await layersOf(fit(bytesOf(4, true) - 1)), [3, 4], 'the head does not fit');
  assert.deepEqual(await layersOf([{ backend: 'cpu', layers: 'fit' }, { backend: 'cpu' }]), [4]);
  // Layers that a later device has by number are not taken.
  assert.deepEqual(await layersOf([{ backend: 'cpu', layers: 'fit' }, ...onCpus([1])]), [3, 4]);
  wasm.dispose();

  /** @type {(readonly number[])[]} */
  const asked = [];
  const model = await loadTo(source, [{ backend: 'cpu', layers: 'fit' }, { backend: 'cpu' }], () => {
    const backend = new ReferenceBackend();
    backend.fits = async (pieces) => {
      asked.push(pieces);
      return 3;
    };
    return backend;
  });
  assert.deepEqual(
    model.info.backend.layers?.map(({ to }) => to),
    [2, 4],
  );
  assert.match(model.info.backend.steps.join('\n'), /backend\[0\] \(cpu\) has room for 2 of 4 layers/);
  // Hidden states and embedding, four layers, the head.
  assert.equal(asked[0].length, 6);
  model.dispose();
});

test('layers that a GPU cannot compute go to the CPU, by name', async () => {
  const made = makeModel({ nLayers: 4 });
  const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
  /** Refuses layers by their number in the file. @param {number[]} refused @param {string[]} opened */
  const makeFor = (refused, opened) => (/** @type {BackendPart} */ part) => {
    opened.push(part.backend);
    const backend = new ReferenceBackend();
    if (part.backend === 'cpu') return backend;
    backend.lacks = /** @type {any} */ (
      (/** @type {any} */ _, /** @type {any[]} */ tensors) => {
        const layers = tensors.map(({ name }) => /blk\.(\d+)/.exec(name)?.[1]).filter(Boolean);
        return refused.some((layer) => layers.includes(String(layer))) ? ['it is of another kind'] : [];
      }
    );
    return backend;
  };
  /** @type {[number[], string, number[] | undefined, BackendPart[]][]} */
  const cases = [
    [[1], 'mixed', [1, 2, 4], [{ backend: 'gpu' }]],
    [[0, 3], 'mixed', [1, 3, 4], [{ backend: 'gpu' }]],
    [[2], 'mixed', [2, 4], [{ backend: 'gpu', layers: 3 }, { backend: 'cpu' }]],
    [[], 'gpu', [2, 4], [{ backend: 'gpu', layers: 2 }, { backend: 'gpu' }]],
    [[0, 1, 2, 3], 'cpu', undefined, [{ backend: 'gpu' }]],
  ];
  for (const [refused, name, ends, list] of cases) {
    /** @type {string[]} */
    const opened = [];
    const model = await loadTo(source, list, makeFor(refused, opened));
    const { backend } = model.info;
    assert.equal(backend.name, name);
    assert.deepEqual(
      backend.layers?.map(({ to }) => to),
      ends,
    );
    const given = list[1]?.backend === 'cpu' ? Number(list[0].layers) : 4;
    for (const { backend: of, from, to } of backend.layers ?? [])
      for (let layer = from; layer < to; layer++)
        assert.equal(of, refused.includes(layer) || layer >= given ? 'cpu' : 'gpu');
    if (refused.length > 0)
      assert.match(
        backend.reason,
        new RegExp(`the CPU computes layers? ${refused.join(', ')}: it is of another kind`),
      );
    assert.equal(opened.filter((one) => one === 'cpu').length, refused.length > 0 ? 1 : 0);
    close(await model.logits(TOKENS), made.logits(TOKENS), CROSSED, 'logits');
    model.dispose();
  }
  await assert.rejects(
    loadTo(source, [{ backend: 'gpu' }], makeFor([0, 1, 2, 3], []), {}, false),
    (error) => error instanceof ModelError && error.message === 'it is of another kind',
  );
});

test('a token that the last stage chose is there for the first one', async () => {
  const made = makeModel({ nLayers: 2 });
  const gguf = await openGguf(/** @type {ArrayBuffer} */ (made.bytes.buffer));
  const plan = planModel(gguf.metadata);
  const planned = checkTensors(gguf, plan);
  const settings = /** @type {const} */ ({
    contextLength: 8,
    kvType: 'F32',
    activation: 'f32',
    causal: true,
  });
  const tensors = planned.map(({ name }) => gguf.tensor(name));
  const facts = { gguf, plan, planned, tensors, settings };
  const opened = await openStages(onCpus([1, 1]), facts, async () => new ReferenceBackend(), true);
  const { backend } = opened;
  const { byRole } = await backend.loadWeights(gguf, plan, planned, { otherBytes: 0 });
  const x = backend.hidden(plan, { batch: 2, part: 2 });
  const tokens = backend.tokens(8);
  const logits = backend.tensor({ nRows: 1, nCols: plan.nVocab });
  const embedding = { settings: plan.embedding, weights: byRole.embedding };
  const states = Float32Array.from({ length: plan.nVocab }, (_, i) => (i === 17 ? 2 : 0));
  backend.write(logits, 0, states);
  backend.pick(logits, 0, tokens, new Sampler(GREEDY), 3);
  const at = { position: 3, start: 0, nTokens: 1, seen: 4 };
  backend.embed(tokens, x, embedding, at);
  const got = await backend.read(x, { start: 0, nRows: 1 });
  backend.writeTokens(tokens, 3, [17]);
  backend.embed(tokens, x, embedding, at);
  assert.deepEqual(got, await backend.read(x, { start: 0, nRows: 1 }));
  assert.ok(got.some((value) => value !== 0));
  assert.deepEqual([...(await backend.readTokens(tokens, 3, 1))], [17]);
  // A token that is written later wins.
  backend.pick(logits, 0, tokens, new Sampler(GREEDY), 4);
  backend.writeTokens(tokens, 4, [5]);
  backend.embed(tokens, x, embedding, { ...at, position: 4 });
  const five = await backend.read(x, { start: 0, nRows: 1 });
  assert.notDeepEqual(five, got);
  backend.dispose();
});

test('a file that ends early is an error of the file, on several devices too', async () => {
  const { bytes } = makeModel({ nLayers: 2 });
  const short = /** @type {ArrayBuffer} */ (bytes.buffer).slice(0, bytes.byteLength - 4000);
  await assert.rejects(Llama.load(short, { backend: onCpus([1, 1]), threads: 1 }), GgufError);
});
