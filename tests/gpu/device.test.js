import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GpuDevice } from '../../js/gpu/device.js';
import { GpuError } from '../../js/gpu/errors.js';
import { shader } from '../../js/gpu/shader.js';
import { gpuSkip, TestGpu, webGpu } from '../helpers/gpu.js';

const DOUBLE = shader({
  name: 'double',
  bindings: { x: 'read array<f32>', y: 'read_write array<f32>' },
  step: true,
  size: [64],
  code: `
@compute
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= step.n_tokens) { return; }
  y[step.start + id.x] = 2.0 * x[step.position + id.x] + f32(step.seen);
}`,
});

/** @param {import('../../js/gpu/errors.js').GpuReason} reason */
const failsWith = (reason) => (/** @type {unknown} */ error) =>
  error instanceof GpuError && error.code === 'FM_GPU' && error.reason === reason;

test('without WebGPU the error says so', async () => {
  await assert.rejects(GpuDevice.open({ gpu: undefined }), failsWith('unavailable'));
  const none = /** @type {GPU} */ (/** @type {unknown} */ ({ requestAdapter: async () => null }));
  await assert.rejects(GpuDevice.open({ gpu: none }), failsWith('adapter'));
});

test('shaders that need more than WebGPU promises are refused', () => {
  const parts = { name: 'large', bindings: {}, size: [64], code: '' };
  assert.throws(() => shader({ ...parts, size: [32, 16] }), /large needs 512 invocations.* promises 256/);
  assert.throws(
    () => shader({ ...parts, workgroup: { a: 'array<array<vec4f, 8>, 128>', b: 'f32' } }),
    /needs 16388 bytes of workgroup memory/,
  );
});

describe('a device', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  test('a software adapter is refused unless it is allowed', async () => {
    const found = await webGpu();
    if ('skip' in found) return;
    await assert.rejects(GpuDevice.open({ gpu: found.gpu }), failsWith('software'));
    assert.equal(gpu.device.software, true);
  });

  test('dispatches see their own steps', async () => {
    const { device, commands, pipelines } = gpu;
    const x = device.bufferOf(Float32Array.from({ length: 300 }, (_, i) => i));
    const y = device.buffer(4 * 300);
    const bound = (await pipelines.compile(DOUBLE)).bind({ x, y });
    // More steps than one submission has room for.
    for (let i = 0; i < 150; i++)
      commands.dispatch(bound, [1, 1, 1], { position: 299 - 2 * i, start: 2 * i, nTokens: 1, seen: i });
    const [bytes] = await commands.read([{ buffer: y, offset: 0, bytes: 1200 }]);
    const expected = Float32Array.from({ length: 300 }, (_, i) => (i % 2 ? 0 : 2 * (299 - i) + i / 2));
    assert.deepEqual(new Float32Array(bytes), expected);
  });

  test('buffers are counted, and written after what is recorded', async () => {
    const { device, commands, pipelines } = gpu;
    const before = device.inUse;
    const x = device.bufferOf(Float32Array.of(1));
    const y = device.buffer(4);
    assert.equal(device.inUse - before, 32);
    commands.dispatch((await pipelines.compile(DOUBLE)).bind({ x, y }), [1, 1, 1], {
      position: 0,
      start: 0,
      nTokens: 1,
      seen: 0,
    });
    commands.write(x, 0, Float32Array.of(5));
    const [bytes] = await commands.read([
      { buffer: y, offset: 0, bytes: 4 },
      { buffer: x, offset: 0, bytes: 4 },
    ]);
    assert.deepEqual([...new Float32Array(bytes)], [2]);
    x.free();
    x.free();
    y.free();
    assert.ok(device.inUse - before <= 256 * 64 + 1200, 'only the steps and the staging buffer are left');
  });

  test('a kernel that the driver rejects is named', async () => {
    const broken = shader({
      name: 'broken',
      bindings: {},
      size: [1],
      code: '@compute fn main() { let a: u32 = 1.5; }',
    });
    await assert.rejects(gpu.pipelines.compile(broken), (error) => {
      assert.ok(failsWith('shader')(error));
      assert.match(String(error), /the kernel broken: line \d+/);
      return true;
    });
  });

  test('a buffer that is too large is refused before the driver is asked', () => {
    const { bufferBytes } = gpu.device.limits;
    assert.throws(() => gpu.device.buffer(bufferBytes + 4), failsWith('memory'));
  });
});

describe('a device that ends', { skip: await gpuSkip() }, () => {
  test('work that the driver rejects ends it', async () => {
    const { device, commands } = await TestGpu.open();
    const a = device.buffer(16);
    commands.copy({ buffer: a, offset: 0, bytes: 64 }, a, 0);
    await assert.rejects(commands.idle(), failsWith('command'));
    assert.throws(() => device.buffer(16), failsWith('command'));
    device.destroy();
  });

  test('whoever waits hears of it', async () => {
    const { device, commands, pipelines } = await TestGpu.open();
    const [x, y] = [device.buffer(16), device.buffer(16)];
    const bound = (await pipelines.compile(DOUBLE)).bind({ x, y });
    commands.dispatch(bound, [1, 1, 1], { position: 0, start: 0, nTokens: 1, seen: 0 });
    const reading = commands.read([{ buffer: y, offset: 0, bytes: 16 }]);
    device.destroy();
    await assert.rejects(reading, failsWith('lost'));
    await assert.rejects(commands.idle(), failsWith('lost'));
    assert.throws(() => device.buffer(16), failsWith('lost'));
    assert.equal((await device.lost).reason, 'lost');
  });
});
