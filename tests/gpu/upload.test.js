import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GgufError, HandleError, ShapeError } from '../../js/errors.js';
import { GpuError } from '../../js/gpu/errors.js';
import { Uploader, uploadWeight } from '../../js/gpu/upload.js';
import { allocateWeights, splitRows } from '../../js/gpu/weights.js';
import { embed, embedGroups } from '../../js/gpu/wgsl/embed.js';
import { blockBytes, tailAt, WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { arrange, fileBytes, gpuBytes, tailOf, typeOf } from '../helpers/gpu-weights.js';
import { Prng } from '../helpers/prng.js';
import { dequantizeF64, referenceByName } from '../helpers/reference.js';

/** @import { GpuWeight } from '../../js/gpu/weight.js' */
/** @import { TensorShape } from '../../js/gpu/weights.js' */

/** @param {number} length @param {number} seed */
function randomBytes(length, seed) {
  const bytes = new Uint8Array(length);
  new Prng(seed).fill(bytes);
  return bytes;
}

/**
 * Pieces of the given sizes, again and again.
 * @param {Uint8Array} bytes
 * @param {readonly number[]} sizes
 */
async function* pieces(bytes, sizes) {
  // One buffer for all, as sources with a spare one do.
  const spare = new Uint8Array(Math.max(...sizes));
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const n = Math.min(sizes[i % sizes.length], bytes.length - at);
    spare.set(bytes.subarray(at, at + n));
    yield spare.subarray(0, n);
    spare.fill(0xa5);
    at += n;
  }
}

/**
 * Odd numbers of blocks, in whole words or not; rows of floats that are padded.
 * @type {[string, number, number][]}
 */
const SHAPES = [
  ...Object.keys(WGSL_TYPES)
    .filter((type) => WGSL_TYPES[type].coded)
    .map((type) => /** @type {[string, number, number]} */ ([type, 5, 3 * typeOf(type).blockValues])),
  ['Q8_0', 7, 32],
  ['MXFP4', 7, 32],
  ['MXFP4', 1, 32],
  ['F32', 3, 77],
  ['F16', 5, 33],
  ['BF16', 4, 16],
  ['F32', 1, 1],
];

describe('weights on a device', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /**
   * @param {TensorShape} tensor
   * @param {AsyncIterable<Uint8Array> | Uint8Array} source
   * @param {Parameters<typeof uploadWeight>[5]} [options]
   */
  const upload = (tensor, source, options) =>
    uploadWeight(gpu.device, gpu.pipelines, gpu.commands, tensor, source, options);

  /** The bytes of each part. @param {GpuWeight} weight */
  async function partsOf(weight) {
    const regions = weight.parts.map(({ buffer }) => ({ buffer, offset: 0, bytes: buffer.bytes }));
    return (await gpu.commands.read(regions)).map((part) => new Uint8Array(part));
  }

  /** @param {GpuWeight} weight @param {Uint8Array} bytes  of the file @param {string} what */
  async function holds(weight, bytes, what) {
    const parts = await partsOf(weight);
    const rowBytes = bytes.length / weight.nRows;
    for (const [i, { firstRow, nRows }] of weight.parts.entries()) {
      const shape = { type: weight.type, nRows, nCols: weight.nCols };
      const own = bytes.subarray(firstRow * rowBytes, (firstRow + nRows) * rowBytes);
      const expected = expectedOf(shape, own);
      const [n, tail] = [gpuBytes(shape), tailAt({ type: weight.type, nBlocks: weight.parts[i].nBlocks })];
      // Between the blocks and what follows them may be anything.
      const wrong = expected.findIndex((byte, at) => (at < n || at >= tail) && byte !== parts[i][at]);
      assert.equal(wrong, -1, `${what}, part ${i}: byte ${wrong}, blocks end at ${n}`);
    }
  }

  /** @type {{ of: Uint8Array, bytes: Uint8Array } | undefined} */
  let arranged;
  /** @param {{ type: string, nRows: number, nCols: number }} shape @param {Uint8Array} bytes */
  function expectedOf(shape, bytes) {
    if (arranged?.of !== bytes) arranged = { of: bytes, bytes: arrange(shape, bytes) };
    return arranged.bytes;
  }

  test('pieces of any size, and chunks of any number of blocks', async () => {
    for (const [i, [type, nRows, nCols]] of SHAPES.entries()) {
      const bytes = randomBytes(fileBytes(type, nRows, nCols), 100 + i);
      const tensor = { type, nRows, nCols, name: `${type} ${nRows}x${nCols}` };
      for (const [sizes, chunkBytes] of /** @type {[number[], number][]} */ ([
        [[1], 1 << 20],
        [[1, 2, 3, 5, 7, 1021], 1200],
        [[4096], 1200],
      ])) {
        let seen = 0;
        const weight = await upload(tensor, pieces(bytes, sizes), {
          sizes: { chunkBytes },
          onBytes: (n) => {
            seen += n;
          },
        });
        assert.equal(seen, bytes.length);
        await holds(weight, bytes, `${tensor.name} in pieces of ${sizes}`);
        weight.free();
      }
    }
  });

  test('bytes that are there already: alone, in shared memory, at odd addresses', async () => {
    for (const type of ['Q6_K', 'Q4_K', 'F16']) {
      const tensor = { type, nRows: 3, nCols: 1280 };
      const bytes = randomBytes(fileBytes(type, 3, 1280), 7);
      const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
      const shared = new Uint8Array(memory.buffer, 13, bytes.length);
      shared.set(bytes);
      const odd = new Uint8Array(new ArrayBuffer(bytes.length + 3), 3);
      odd.set(bytes);
      for (const [what, source] of Object.entries({ bytes, shared, odd })) {
        const weight = await upload(tensor, source);
        await holds(weight, bytes, `${type}: ${what}`);
        weight.free();
      }
    }
  });

  test('memory of a module that grows meanwhile is an error, not wrong weights', async () => {
    const bytes = new Uint8Array(new ArrayBuffer(3 * 1280 * 4));
    const growing = async function* () {
      yield bytes.subarray(0, 1000);
      structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
      yield bytes;
    };
    await assert.rejects(upload({ type: 'F32', nRows: 3, nCols: 1280 }, growing()), GgufError);
  });

  test('GPU memory is that of the file, and some rounding', async () => {
    const before = gpu.device.inUse;
    const shapes = /** @type {[string, number, number][]} */ ([
      ...Object.keys(WGSL_TYPES).map((type) => [type, 64, 1024]),
      ['F32', 1, 2048],
      ['F32', 1, 3072],
    ]);
    const tensors = shapes.map(([type, nRows, nCols]) => ({ type, nRows, nCols }));
    const weights = await allocateWeights(gpu.device, tensors);
    const file = shapes.reduce((sum, shape) => sum + fileBytes(...shape), 0);
    const used = gpu.device.inUse - before;
    assert.ok(used >= file && used <= 1.02 * file, `${used} bytes for ${file}`);
    for (const weight of weights) weight.free();
    assert.equal(gpu.device.inUse, before);
  });

  test('all buffers are made, or none', async () => {
    const { device } = gpu;
    const before = device.inUse;
    const { bindingBytes, bufferBytes } = device.limits;
    const large = { type: 'F32', nRows: 1, nCols: Math.ceil((bindingBytes + 64) / 4), name: 'wide' };
    await assert.rejects(
      allocateWeights(device, [{ type: 'Q4_0', nRows: 4, nCols: 32 }, large]),
      (error) =>
        error instanceof GpuError &&
        error.reason === 'limit' &&
        /tensor "wide": a row of/.test(error.message),
    );
    assert.equal(device.inUse, before);
    // The second buffer is refused when the first one is there already.
    device.limits.bufferBytes = 100;
    try {
      await assert.rejects(
        allocateWeights(device, [
          { type: 'Q4_0', nRows: 4, nCols: 32 },
          { type: 'F32', nRows: 2, nCols: 32 },
        ]),
        (error) => error instanceof GpuError && error.reason === 'memory',
      );
    } finally {
      device.limits.bufferBytes = bufferBytes;
    }
    assert.equal(device.inUse, before);
  });

  test('large tensors are split by rows', async () => {
    const { device } = gpu;
    const { bindingBytes } = device.limits;
    try {
      for (const [type, nRows, nCols] of /** @type {[string, number, number][]} */ ([
        ['Q6_K', 11, 768],
        ['Q4_K', 7, 512],
        ['MXFP4', 13, 96],
        ['F16', 9, 77],
        ['IQ2_XS', 11, 768],
        ['NVFP4', 7, 192],
      ])) {
        const tensor = { type, nRows, nCols };
        const rowBytes = gpuBytes({ type, nRows: 1, nCols });
        // Room for three rows and a half, and for what follows them.
        device.limits.bindingBytes = Math.floor(3.5 * rowBytes) + tailOf(type).byteLength;
        const bytes = randomBytes(fileBytes(type, nRows, nCols), nRows);
        const weight = await upload(tensor, pieces(bytes, [1000, 1, 333]), { sizes: { chunkBytes: 1200 } });
        assert.equal(weight.parts.length, Math.ceil(nRows / 3));
        for (const { buffer } of weight.parts) assert.ok(buffer.bytes <= device.limits.bindingBytes);
        await holds(weight, bytes, type);
        // Units of rows in the middle: what they name is where they say.
        const view = weight.rows(2, 5).rows(0, 3);
        const named = view.units().map(({ unit, firstRow }) => [unit.nRows, unit.firstBlock, firstRow]);
        const perRow = rowBytes / blockBytes(type);
        assert.deepEqual(named, [
          [1, 2 * perRow, 0],
          [2, 0, 1],
        ]);
        // Rows that begin where a part does.
        const [second, ...none] = weight.rows(3, 2).units();
        assert.deepEqual([second.unit.nRows, second.unit.firstBlock, second.firstRow], [2, 0, 0]);
        assert.deepEqual(none, []);
        weight.free();
      }
    } finally {
      device.limits.bindingBytes = bindingBytes;
    }
  });

  test('rows of a split weight are looked up part by part', async () => {
    const { device, commands, pipelines } = gpu;
    const { bindingBytes } = device.limits;
    const [type, nRows, nCols] = ['Q5_0', 7, 64];
    const bytes = randomBytes(fileBytes(type, nRows, nCols), 3);
    // Scales of one, so that all values are exact.
    for (let at = 0; at < bytes.length; at += 22) bytes.set([0, 0x3c], at);
    device.limits.bindingBytes = 3 * gpuBytes({ type, nRows: 1, nCols });
    const weight = await upload({ type, nRows, nCols }, bytes).finally(() => {
      device.limits.bindingBytes = bindingBytes;
    });
    const rows = Uint32Array.of(6, 0, 3, 5, 2);
    const ids = device.bufferOf(rows);
    const y = device.buffer(rows.length * nCols * 4);
    for (const { unit, buffer, firstRow } of weight.units()) {
      const bound = (await pipelines.compile(embed({ unit, scale: 1, firstRow }))).bind({
        w: buffer,
        ids,
        y,
      });
      const step = { position: 0, start: 0, nTokens: rows.length, seen: 0 };
      commands.dispatch(bound, embedGroups(unit, rows.length), step);
    }
    const [out] = await commands.read([{ buffer: y, offset: 0, bytes: y.bytes }]);
    const reference = /** @type {import('../helpers/reference.js').ReferenceType} */ (
      referenceByName.get(type)
    );
    const { values } = dequantizeF64(reference, bytes);
    const expected = [...rows].flatMap((row) => [...values.subarray(row * nCols, (row + 1) * nCols)]);
    assert.deepEqual([...new Float32Array(out)], expected);
    for (const buffer of [ids, y]) buffer.free();
    weight.free();
  });

  test('several weights side by side, through one staging buffer', async () => {
    const { device, commands, pipelines } = gpu;
    const shapes = ['Q6_K', 'Q3_K', 'Q4_K', 'TQ1_0'].map((type) => ({ type, nRows: 9, nCols: 768 }));
    const files = shapes.map(({ type, nRows, nCols }, i) =>
      randomBytes(fileBytes(type, nRows, nCols), 40 + i),
    );
    const weights = await allocateWeights(device, shapes);
    const uploader = new Uploader(device, pipelines, commands, { chunkBytes: 2048, windowBytes: 4096 });
    await uploader.prepare(shapes.map(({ type }) => type));
    await Promise.all(
      weights.map(async (weight, i) => {
        const writer = uploader.writer(weight);
        for await (const piece of pieces(files[i], [700, 11 + i])) await writer.write(piece);
        writer.end();
      }),
    );
    for (const [i, weight] of weights.entries()) await holds(weight, files[i], weight.type);
    uploader.free();
    for (const weight of weights) weight.free();
  });

  test('no more than two windows wait for the GPU', async () => {
    const { device, commands, pipelines } = gpu;
    const [type, nRows, nCols] = ['Q8_0', 64, 1024];
    const bytes = randomBytes(fileBytes(type, nRows, nCols), 5);
    const [chunkBytes, windowBytes] = [2048, 8192];
    let [written, done, most, waits] = [0, 0, 0, 0];
    const write = commands.write.bind(commands);
    const idle = commands.idle.bind(commands);
    commands.write = (buffer, offset, data) => {
      written += data.byteLength;
      most = Math.max(most, written - done);
      write(buffer, offset, data);
    };
    commands.idle = async () => {
      const now = written;
      await idle();
      done = now;
      waits += 1;
    };
    try {
      const options = { sizes: { chunkBytes, windowBytes } };
      (await uploadWeight(device, pipelines, commands, { type, nRows, nCols }, bytes, options)).free();
    } finally {
      commands.write = write;
      commands.idle = idle;
    }
    assert.ok(written >= bytes.length);
    assert.ok(waits >= bytes.length / windowBytes / 2, `${waits} waits`);
    // A window ends with the chunk that is the last to fit.
    assert.ok(most <= 2 * (windowBytes + chunkBytes), `${most} bytes waited`);
  });

  test('streams that end early or give too much', async () => {
    const before = gpu.device.inUse;
    for (const [type, nCols] of /** @type {[string, number][]} */ ([
      ['Q4_0', 32],
      ['Q4_K', 256],
      ['F16', 33],
    ])) {
      const tensor = { type, nRows: 3, nCols, name: 'blk.0' };
      const n = fileBytes(type, 3, nCols);
      for (const length of [0, 1, n - 1, n + 1, 3 * n]) {
        await assert.rejects(upload(tensor, pieces(randomBytes(length, 1), [n])), (error) => {
          assert.ok(error instanceof GgufError);
          assert.match(error.message, new RegExp(`^tensor "blk.0": got \\d+ bytes of ${n}$`));
          assert.equal(error.tensor, 'blk.0');
          return true;
        });
      }
      const failure = new Error('connection reset');
      const broken = async function* () {
        yield new Uint8Array(1);
        throw failure;
      };
      await assert.rejects(upload(tensor, broken()), (error) => error === failure);
    }
    assert.ok(gpu.device.inUse <= before, 'everything is freed');
  });

  test('a signal ends it, also while bytes are awaited', async () => {
    const before = gpu.device.inUse;
    const tensor = { type: 'Q8_0', nRows: 3, nCols: 64 };
    const reason = new Error('enough');
    const isReason = (/** @type {unknown} */ error) => error === reason;
    await assert.rejects(upload(tensor, new Uint8Array(0), { signal: AbortSignal.abort(reason) }), isReason);

    let returned = false;
    /** @type {AsyncIterable<Uint8Array>} */
    const silent = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: async () => {
          returned = true;
          return { done: true, value: undefined };
        },
      }),
    };
    const waiting = new AbortController();
    const stuck = upload(tensor, silent, { signal: waiting.signal });
    setTimeout(() => waiting.abort(reason), 20);
    await assert.rejects(stuck, isReason);
    assert.equal(returned, true);

    const between = new AbortController();
    const bytes = new Uint8Array(fileBytes('Q8_0', 3, 64));
    const stopped = upload(tensor, pieces(bytes, [10]), {
      signal: between.signal,
      onBytes: () => between.abort(reason),
    });
    await assert.rejects(stopped, isReason);
    assert.ok(gpu.device.inUse <= before, 'everything is freed');
  });

  test('a weight that is freed meanwhile, and one that its caller made', async () => {
    const tensor = { type: 'Q8_0', nRows: 3, nCols: 64 };
    const bytes = randomBytes(fileBytes('Q8_0', 3, 64), 9);
    const [into] = await allocateWeights(gpu.device, [tensor]);
    assert.equal(await upload(tensor, bytes, { into }), into);
    await holds(into, bytes, 'into');
    await assert.rejects(upload(tensor, bytes.subarray(1), { into }), GgufError);
    assert.equal(into.freed, false);
    const stream = pieces(bytes, [100]);
    const freed = upload(tensor, stream, { into, onBytes: () => into.freed || into.free() });
    await assert.rejects(freed, HandleError);
    // The device is as good as before.
    await gpu.commands.idle();
  });

  test('rows, views, and what is freed', async () => {
    const tensor = { type: 'Q4_0', nRows: 5, nCols: 32, name: 'token_embd.weight' };
    const [weight] = await allocateWeights(gpu.device, [tensor]);
    const view = weight.rows(1, 3);
    assert.equal(`${view}`, 'weight "token_embd.weight" (Q4_0 3x32)');
    assert.deepEqual(view.rows(1, 2).units()[0].unit, {
      type: 'Q4_0',
      nRows: 2,
      nCols: 32,
      nBlocks: 5,
      firstBlock: 2,
    });
    assert.throws(
      () => view.rows(1, 3),
      (error) => {
        assert.ok(error instanceof ShapeError);
        assert.match(error.message, /3 row\(s\) from row 1 on end at 4 of 3/);
        return true;
      },
    );
    for (const [start, n] of [
      [-1, 1],
      [0, 0],
      [0.5, 1],
      [0, NaN],
    ])
      assert.throws(() => weight.rows(start, n), ShapeError);
    assert.throws(
      () => view.free(),
      (error) => error instanceof HandleError && error.reason === 'view',
    );
    weight.free();
    assert.deepEqual([weight.freed, view.freed], [true, true]);
    for (const use of [() => weight.free(), () => weight.units(), () => view.units(), () => view.rows(0, 1)])
      assert.throws(use, (error) => error instanceof HandleError && error.reason === 'freed');
  });
});

test('parts have whole rows, all of them once', () => {
  for (const nRows of [1, 3, 4, 9]) {
    const parts = splitRows({ type: 'Q4_0', nRows, nCols: 64 }, 36 * 4 + 3);
    let at = 0;
    for (const part of parts) {
      assert.equal(part.firstRow, at);
      assert.equal(part.nBlocks, 2 * part.nRows);
      at += part.nRows;
    }
    assert.equal(at, nRows);
    assert.equal(parts.length, Math.ceil(nRows / 4));
  }
});

describe('a device that is lost', { skip: await gpuSkip() }, () => {
  test('ends what is on its way', async () => {
    for (const type of ['Q8_0', 'Q4_K']) {
      const { device, commands, pipelines } = await TestGpu.open();
      const tensor = { type, nRows: 3, nCols: 256 };
      const bytes = new Uint8Array(fileBytes(type, 3, 256));
      const isLost = (/** @type {unknown} */ error) => error instanceof GpuError && error.reason === 'lost';
      // In the middle of the bytes, while they are awaited, and before it begins.
      const half = async function* () {
        yield bytes.subarray(0, 300);
        device.destroy();
        yield bytes.subarray(300);
      };
      await assert.rejects(uploadWeight(device, pipelines, commands, tensor, half()), isLost);
      await assert.rejects(uploadWeight(device, pipelines, commands, tensor, bytes), isLost);
      const other = await TestGpu.open();
      const silent = async function* () {
        yield bytes.subarray(0, 1);
        other.device.destroy();
        await new Promise(() => {});
      };
      const waiting = uploadWeight(other.device, other.pipelines, other.commands, tensor, silent());
      await assert.rejects(waiting, isLost);
    }
  });
});
