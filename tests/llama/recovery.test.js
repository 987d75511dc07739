/**
 * Devices that are lost while a model computes: at any call, again while they are replaced, with and
 * without a file to load from. The devices are float64 JavaScript, which fails as a GPU does; the CPU
 * is the real one.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { openGguf } from '../../js/gguf/index.js';
import { GpuError } from '../../js/gpu/errors.js';
import { HandleError, Llama } from '../../js/llama/index.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { pause } from '../helpers/workers.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { GgufFile } from '../../js/gguf/file.js' */
/** @import { GgufSource } from '../../js/gguf/source.js' */
/** @import { LlamaOptions } from '../../js/llama/load-options.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */

const SPEC = { nEmbd: 8, nFf: 12, nHeads: 2, nKvHeads: 1, nLayers: 2, context: 32 };
const { bytes } = makeModel(SPEC);
/** The same, opened once. */
const file = await openGguf(bytes);
const PROMPT = [1, 17, 5, 30];
const GREEDY = { temperature: 0, ignoreEnd: true, maxTokens: 5 };
const DRAWN = { temperature: 1.5, topK: 0, repeatPenalty: 1.1, seed: 7, ignoreEnd: true, maxTokens: 5 };
const TEXTS = ['\u4e05\u4e11\u4e08\u4e09', '\u4e0a', '\u4e05\u4e0c\u4e20'];
const EXACT = /** @type {const} */ ({ kvType: 'F32', activation: 'f32' });

const WAITED_FOR = ['loadWeights', 'read', 'readStates', 'readTokens', 'idle'];
const RECORDED = ['writeTokens', 'embed', 'project', 'attend', 'feed', 'check', 'head', 'pick', 'flush'];
const MADE = ['tensor', 'hidden', 'tokens', 'cache'];

/**
 * When a loss is noticed: by the call itself, by the next one that waits for something, or by that
 * one after it has done its work.
 * @typedef {'at once' | 'later' | 'afterwards'} Notice
 */

/**
 * A device, which is lost at a call: the first has number 0.
 * @param {object} [options]
 * @param {number} [options.at]
 * @param {Notice} [options.notice]
 * @param {number} [options.ahead]
 * @param {() => GpuError} [options.error]
 */
function device({
  at = Number.POSITIVE_INFINITY,
  notice = 'at once',
  ahead,
  error = () => new GpuError('the GPU device was lost', 'lost'),
} = {}) {
  const real = new ReferenceBackend(ahead === undefined ? {} : { ahead });
  let calls = 0;
  const backend = new Proxy(real, {
    get(target, /** @type {string} */ name) {
      if (name === 'info' && target.disposed) throw new HandleError('the GPU is disposed', 'disposed');
      const value = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      const isWaitedFor = WAITED_FOR.includes(name);
      if (!isWaitedFor && ![...RECORDED, ...MADE].includes(name)) return value.bind(target);
      return (/** @type {unknown[]} */ ...given) => {
        if (target.disposed) throw new HandleError('the GPU of this model is disposed', 'disposed');
        const isLost = calls++ >= at;
        if (!isLost) return value.apply(target, given);
        if (notice === 'at once' && !isWaitedFor) throw error();
        if (notice === 'afterwards' || MADE.includes(name)) {
          const result = value.apply(target, given);
          return isWaitedFor ? result.then(() => Promise.reject(error())) : result;
        }
        return isWaitedFor ? Promise.reject(error()) : undefined;
      };
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
  });
  return {
    backend: /** @type {Backend} */ (/** @type {unknown} */ (backend)),
    real,
    calls: () => calls,
    /** Fails if something is left on it. */
    checkEmpty() {
      assert.equal(real.disposed, true);
      assert.deepEqual(
        real.made.filter(({ freed }) => !freed),
        [],
      );
    },
  };
}

/** @typedef {ReturnType<typeof device>} Device */

/**
 * Loads to the first of some devices; the others replace it.
 * @param {(Device | Error | (() => Promise<Device>))[]} devices
 * @param {{ source?: GgufSource | GgufFile, options?: LlamaOptions }} [how]
 */
async function load(devices, { source = file, options = {} } = {}) {
  let opened = 0;
  const open = async () => {
    const next = devices[opened++];
    if (!next) throw new Error('there are no more devices');
    if (next instanceof Error) throw next;
    const { backend } = typeof next === 'function' ? await next() : next;
    const choice = { name: /** @type {const} */ ('gpu'), reason: 'for a test', steps: [`opened ${opened}`] };
    return { backend, choice };
  };
  const model = await Llama.loadTo(open, source, { backend: 'auto', threads: 1, ...EXACT, ...options });
  return { model, opened: () => opened };
}

/** A clock in which a minute passes between two looks at it. @param {import('node:test').TestContext} t */
function passMinutes(t) {
  let now = 0;
  t.mock.method(Date, 'now', () => {
    now += 60_001;
    return now;
  });
}

/** @param {Pick<Llama, 'generate'>} model @param {GenerateOptions} [options] */
async function write(model, options = GREEDY) {
  const run = model.generate(PROMPT, options);
  await run.text();
  return run.tokens;
}

/** What an undisturbed model computes, and with how many calls. @param {(model: Llama) => Promise<any>} use @param {number} [ahead] */
async function undisturbed(use, ahead) {
  const whole = device(ahead === undefined ? {} : { ahead });
  const { model } = await load([whole]);
  const loading = whole.calls();
  const result = await use(model);
  const calls = whole.calls();
  model.dispose();
  whole.checkEmpty();
  return { result, loading, calls };
}

/** @type {[string, (model: Llama) => Promise<any>, (number | undefined)[]][]} */
const USES = [
  ['the most likely tokens', (model) => write(model), [undefined, 3]],
  ['drawn tokens', (model) => write(model, DRAWN), [undefined]],
  ['logits', (model) => model.logits(PROMPT), [undefined]],
  ['embeddings', (model) => model.embed(TEXTS), [undefined]],
];

describe('a device that is lost', () => {
  for (const [what, use, aheads] of USES) {
    test(`at any call: ${what} are those of an undisturbed model`, async () => {
      for (const ahead of aheads) {
        const { result, loading, calls } = await undisturbed(use, ahead);
        assert.ok(calls > loading + 20);
        for (const notice of /** @type {Notice[]} */ (['at once', 'later', 'afterwards'])) {
          for (let at = loading; at < calls; at++) {
            const where = `call ${at} of ${calls}, noticed ${notice}, ${ahead} ahead`;
            const options = ahead === undefined ? {} : { ahead };
            const [first, second] = [device({ at, notice, ...options }), device(options)];
            const { model, opened } = await load([first, second]);
            assert.deepEqual(await use(model), result, where);
            // The last calls of a text may be of tokens that nobody reads.
            if (opened() === 1) assert.ok(ahead || notice !== 'at once', where);
            assert.deepEqual(await use(model), result, `${where}, the next call`);
            if (opened() === 2) first.checkEmpty();
            else assert.equal(opened(), 1);
            model.dispose();
            first.checkEmpty();
            if (opened() === 2) second.checkEmpty();
          }
        }
      }
    });
  }

  test('while two contexts write: both go on as if nothing had happened', async () => {
    const start = async (/** @type {Device[]} */ devices, /** @type {GenerateOptions} */ other) => {
      const { model, opened } = await load(devices);
      const context = await model.context({ contextLength: 20 });
      const use = () => Promise.all([write(model), write(context, other)]);
      return { model, opened, context, use };
    };
    for (const ahead of [undefined, 3]) {
      const options = ahead === undefined ? {} : { ahead };
      const other = ahead === undefined ? DRAWN : { ...GREEDY, maxTokens: 7 };
      const whole = device(options);
      const undisturbedOne = await start([whole], other);
      const from = whole.calls();
      const result = await undisturbedOne.use();
      const calls = whole.calls();
      undisturbedOne.model.dispose();
      whole.checkEmpty();
      for (const notice of /** @type {Notice[]} */ (['at once', 'later', 'afterwards'])) {
        for (let at = from; at < calls; at += 2) {
          const where = `call ${at} of ${calls}, noticed ${notice}, ${ahead} ahead`;
          const [first, second] = [device({ at, notice, ...options }), device(options)];
          const { model, opened, context, use } = await start([first, second], other);
          assert.deepEqual(await use(), result, where);
          assert.deepEqual(await use(), result, `${where}, the next calls`);
          assert.ok(opened() <= 2, where);
          if (opened() === 2) first.checkEmpty();
          const made = (opened() === 2 ? second : first).real.made;
          const held = made.filter(({ freed }) => !freed).length;
          context.dispose();
          await pause(2);
          // Keys and values of two layers, and the tokens.
          assert.equal(held - made.filter(({ freed }) => !freed).length, 3, where);
          model.dispose();
          for (const one of [first, second].slice(0, opened())) one.checkEmpty();
        }
      }
    }
  });

  test('again while it is replaced, and a minute later: the next device goes on', async (t) => {
    passMinutes(t);
    const { result, loading, calls } = await undisturbed(write);
    const at = Math.floor((loading + calls) / 2);
    for (const notice of /** @type {Notice[]} */ (['at once', 'later', 'afterwards'])) {
      let nLosses = 2;
      for (let again = loading; nLosses === 2; again += 3) {
        const devices = [device({ at, notice }), device({ at: again, notice }), device()];
        const { model, opened } = await load(devices);
        assert.deepEqual(await write(model), result, `call ${again}, noticed ${notice}`);
        model.dispose();
        nLosses = opened() - 1;
        for (const one of devices.slice(0, opened())) one.checkEmpty();
        // What is left of the text takes fewer calls.
        if (nLosses < 2) assert.ok(again - loading > (calls - loading) / 2, `call ${again}, ${notice}`);
      }
    }
  });

  test('twice within a minute: the CPU goes on, and stays', async () => {
    const { result, loading, calls } = await undisturbed(write);
    const at = Math.floor((loading + calls) / 2);
    for (const again of [loading, at - 5, at]) {
      const devices = [device({ at }), device({ at: again })];
      const { model, opened } = await load(devices);
      assert.deepEqual(await write(model), result, `call ${again}`);
      assert.deepEqual(await write(model), result);
      assert.equal(opened(), 2);
      const { backend, kernels } = model.info;
      assert.equal(backend.name, 'cpu');
      assert.equal(backend.reason, 'the GPU was lost twice within a minute');
      assert.equal(backend.steps.length, 5, backend.steps.join('\n'));
      assert.equal(kernels.threads, 1, 'options of the CPU are heard');
      for (const one of devices) one.checkEmpty();
      model.dispose();
    }
  });

  test('its loss is told by info', async () => {
    const { loading, calls } = await undisturbed(write);
    const [first, second] = [device({ at: Math.floor((loading + calls) / 2) }), device()];
    const { model } = await load([first, second]);
    await write(model);
    const { name, reason, steps } = model.info.backend;
    assert.equal(name, 'gpu');
    assert.match(reason, /^the GPU was lost after [4-9] tokens: opened again$/);
    const [, lost] = steps;
    assert.match(lost, /^the GPU was lost after [4-9] tokens: the GPU device was lost$/);
    assert.deepEqual(steps, ['opened 1', lost, 'opened 2']);
    model.dispose();
  });

  test('no memory left counts as a loss; other errors, and given kernels, do not', async () => {
    const { result, loading } = await undisturbed(write);
    const failing = (/** @type {import('../../js/gpu/errors.js').GpuReason} */ reason) =>
      device({ at: loading + 9, error: () => new GpuError(`it fails: ${reason}`, reason) });
    const { model } = await load([failing('memory'), device()]);
    assert.deepEqual(await write(model), result);
    model.dispose();
    const other = await load([failing('command'), device()]);
    await assert.rejects(
      write(other.model),
      (error) => error instanceof GpuError && error.reason === 'command',
    );
    other.model.dispose();
    const given = failing('lost');
    const owned = await Llama.loadTo(async () => given.backend, file, EXACT);
    await assert.rejects(
      write(owned),
      (error) => error instanceof GpuError && error.message === 'it fails: lost',
    );
    owned.dispose();
  });

  test('that cannot be opened again, or loaded to: the CPU goes on', async () => {
    const { result, loading } = await undisturbed(write);
    const none = new GpuError('there is no adapter', 'adapter');
    for (const [next, why] of /** @type {[Device | Error, RegExp][]} */ ([
      [none, /: it cannot be opened again: there is no adapter$/],
      [device({ at: 0 }), /: it cannot be opened again: the GPU device was lost$/],
      [device({ at: 3 }), /: it cannot be opened again: the GPU device was lost$/],
    ])) {
      const first = device({ at: loading + 30 });
      const { model } = await load([first, next]);
      assert.deepEqual(await write(model), result);
      const { name, reason } = model.info.backend;
      assert.equal(name, 'cpu');
      assert.match(reason, why);
      first.checkEmpty();
      if (!(next instanceof Error)) next.checkEmpty();
      model.dispose();
    }
  });
});

describe('a device that is lost, and its file', () => {
  /** @param {unknown} error */
  const isGone = (error) =>
    error instanceof GpuError &&
    error.reason === 'lost' &&
    /^the GPU device was lost; the model cannot be loaded again: /.test(error.message);

  test('a file that was given open, and is closed', async () => {
    const { result, loading } = await undisturbed(write);
    for (const isClosed of [false, true]) {
      const gguf = await openGguf(bytes);
      const devices = [device({ at: loading + 30 }), device(), device(), device()];
      const { model, opened } = await load(devices, { source: gguf });
      if (isClosed) {
        gguf.close();
        for (let n = 1; n <= 2; n++) {
          await assert.rejects(
            write(model),
            (error) => isGone(error) && /is closed$/.test(/** @type {Error} */ (error).message),
          );
          assert.equal(opened(), 1 + n, 'the next call tries it again');
          assert.equal(model.info.backend.name, 'gpu');
        }
      } else assert.deepEqual(await write(model), result);
      model.dispose();
      for (const one of devices.slice(0, opened())) one.checkEmpty();
    }
  });

  test('a file that is away for a while', async () => {
    const { result, loading } = await undisturbed(write);
    const folder = await mkdtemp(path.join(tmpdir(), 'fused-matmul-lost-'));
    const [here, away] = [path.join(folder, 'model.gguf'), path.join(folder, 'away.gguf')];
    await writeFile(here, bytes);
    try {
      const devices = [device({ at: loading + 30 }), device(), device()];
      const { model } = await load(devices, { source: here });
      await rename(here, away);
      await assert.rejects(write(model), isGone);
      assert.match(model.info.backend.steps.at(-1) ?? '', /^the GPU was lost after \d+ tokens/);
      await rename(away, here);
      assert.deepEqual(await write(model), result);
      assert.match(model.info.backend.reason, /: opened again$/);
      model.dispose();
      for (const one of devices) one.checkEmpty();
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('while a device is replaced', () => {
  /** A model whose second device opens when it is told to. */
  async function waiting() {
    const { result, loading } = await undisturbed(write);
    const devices = [device({ at: loading + 30 }), device(), device()];
    /** @type {(device: Device) => void} */
    let open = () => {};
    /** @type {() => void} */
    let ask = () => {};
    const asked = new Promise((resolve) => {
      ask = () => resolve(undefined);
    });
    const second = () => {
      ask();
      return new Promise((/** @type {(device: Device) => void} */ resolve) => {
        open = resolve;
      });
    };
    const { model, opened } = await load([devices[0], second, devices[2]]);
    return { result, devices, model, opened, asked, open: () => open(devices[1]) };
  }

  test('an abort, a cancel and a return end the call at once; the next one has a device', async () => {
    for (const how of ['abort', 'cancel', 'return']) {
      const { result, devices, model, asked, open, opened } = await waiting();
      const controller = new AbortController();
      const run = model.generate(PROMPT, { ...GREEDY, signal: controller.signal });
      const reading = run.text();
      reading.catch(() => {});
      await asked;
      await assert.rejects(model.logits(PROMPT), { code: 'FM_BUSY' });
      if (how === 'abort') controller.abort(new Error('enough'));
      else if (how === 'cancel') run.cancel();
      else void run.return();
      if (how === 'abort') await assert.rejects(reading, { message: 'enough' });
      else assert.equal(await reading, run.written);
      assert.equal(model.info.backend.name, 'gpu');
      const next = write(model);
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal(opened(), 2, 'it waits for the device that is being opened');
      open();
      assert.deepEqual(await next, result, how);
      devices[0].checkEmpty();
      devices[1].checkEmpty();
      model.dispose();
      devices[2].checkEmpty();
    }
  });

  test('a model that is disposed ends the call at once, and the device that is being opened', async () => {
    const { devices, model, asked, open } = await waiting();
    const reading = write(model);
    reading.catch(() => {});
    await asked;
    model.dispose();
    await assert.rejects(reading, (error) => error instanceof HandleError && error.reason === 'disposed');
    open();
    await new Promise((resolve) => setTimeout(resolve, 20));
    devices[0].checkEmpty();
    devices[1].checkEmpty();
    assert.equal(devices[2].calls(), 0);
  });

  test('a model that is disposed when the weights have just arrived leaves nothing', async () => {
    const { devices, model, asked, open } = await waiting();
    const { real } = devices[1];
    const { loadWeights } = real;
    real.loadWeights = async (...given) => {
      const weights = await loadWeights.apply(real, given);
      model.dispose();
      return weights;
    };
    const reading = write(model);
    reading.catch(() => {});
    await asked;
    open();
    await assert.rejects(reading, (error) => error instanceof HandleError && error.reason === 'disposed');
    await new Promise((resolve) => setTimeout(resolve, 20));
    devices[1].checkEmpty();
  });
});
