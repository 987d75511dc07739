/** The error classes: their inheritance and their fields. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { show, statusError } from '../../js/errors.js';
import * as library from '../../js/index.js';

const numbers = { asked: 1, inUse: 2, limit: 3 };
const samples = [
  new library.ShapeError('s', { got: 300, expected: 256 }),
  new library.ArgumentError('a'),
  new library.HandleError('h', 'freed'),
  new library.GgufError('g', { offset: 24, tensor: 't', cause: new Error('below') }),
  new library.IsaError('i', { isa: 'relaxed' }),
  new library.LoadError('l', { url: 'http://x/' }),
  new library.MemoryError('m', numbers),
];

test('every error has a code and a name of its own and is an FmError', () => {
  assert.equal(new Set(samples.map((error) => error.code)).size, samples.length);
  for (const error of samples) {
    assert.match(error.code, /^FM_[A-Z]+$/);
    assert.ok(error instanceof library.FmError, error.name);
    assert.ok(error instanceof Error, error.name);
    const [kind] = Object.entries(library).find(([, value]) => error.constructor === value) ?? [];
    assert.equal(error.name, kind);
  }
});

test('an FmError is only what the library threw, and a subclass only itself', () => {
  for (const other of [new Error('x'), new RangeError('x'), new TypeError('x'), null, undefined, 'x', {}]) {
    assert.ok(!(other instanceof library.FmError), String(other));
  }
  assert.ok(samples[1] instanceof library.ArgumentError);
  assert.ok(!(samples[1] instanceof library.GgufError));
  assert.ok(!(samples[2] instanceof library.GgufError));
  assert.ok(!(new library.FmError('x') instanceof library.GgufError));
});

test('shape and argument errors are what JavaScript itself would throw', () => {
  assert.ok(samples[0] instanceof RangeError);
  assert.ok(samples[1] instanceof TypeError);
});

test('fields carry the numbers and the places', () => {
  const [shape, , handle, gguf, isa, load, memory] = /** @type {any[]} */ (samples);
  assert.deepEqual([shape.got, shape.expected], [300, 256]);
  assert.equal(handle.reason, 'freed');
  assert.deepEqual([gguf.offset, gguf.tensor, gguf.cause.message], [24, 't', 'below']);
  assert.equal(isa.isa, 'relaxed');
  assert.equal(load.url, 'http://x/');
  assert.deepEqual({ asked: memory.asked, inUse: memory.inUse, limit: memory.limit }, numbers);
});

test('every status of the C ABI becomes an error that says what was called', () => {
  const kinds = [1, 2, 3, 4, 5, 6, 7, 99].map((status) => statusError(status, 'fusedMatmul'));
  for (const error of kinds) {
    assert.ok(error instanceof library.FmError);
    assert.match(error.message, /^fusedMatmul: ./);
  }
  assert.ok(kinds[1] instanceof library.ShapeError);
  assert.ok(kinds[6] instanceof library.IsaError);
  assert.match(kinds[7].message, /status 99/);
});

test('values are shown so that a message can be read', () => {
  assert.equal(show('x'.repeat(100)), `"${'x'.repeat(100)}"`);
  assert.equal(show('x'.repeat(70000)), `"${'x'.repeat(100)}"... (70000 characters)`);
  assert.equal(show('a"b'), '"a\\"b"');
  assert.equal(show(null), 'null');
  assert.equal(show(undefined), 'undefined');
  assert.equal(show(new Uint8Array(2)), 'Uint8Array');
  assert.equal(show(Object.create(null)), 'an object');
  assert.equal(show(Math.max), 'a function');
  assert.equal(show(1.5), '1.5');
});
