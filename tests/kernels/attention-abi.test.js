/**
 * The exports of attention: every status, unchanged outputs on error, the ends of the memory, and
 * scratch memory whose size does not depend on any length.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkWithin,
  KV,
  makeCase,
  makeShape,
  referenceAttention,
  seenBy,
  shapeBytes,
} from '../helpers/attention.js';
import { Prng } from '../helpers/prng.js';
import { freshModule, openModules, STATUS } from '../helpers/raw.js';

/** @import { Case, Shape } from '../helpers/attention.js' */
/** @import { RawModule } from '../helpers/raw.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`attention ABI: ${name} module`, { skip: reason }, () => {});
const PAGE = 65536;

/**
 * @param {RawModule} module @param {ArrayBufferView} data @param {number} [at] @returns {number}
 */
function put(module, data, at = module.alloc(data.byteLength)) {
  module.u8.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
  return at;
}

/**
 * @param {Case} made
 * @returns {{ shape: number, q: number, k: number, v: number, out: number }} size in bytes of each
 */
const sizesOf = ({ q, k, v }) => ({
  shape: 48,
  q: q.byteLength,
  k: k.bytes.length,
  v: v.bytes.length,
  out: q.byteLength,
});

for (const module of modules) {
  test(`attention ABI: ${module.name} module: fm_flash_attention refuses what does not fit`, () => {
    for (const kvType of Object.values(KV)) {
      const made = makeCase(makeShape({ nTokens: 2, nPositions: 3, headSize: 32, kvType }), new Prng(1));
      const sizes = sizesOf(made);
      /* at a lower address than the others, so that an output can begin before them */
      const room = module.alloc(sizes.out);
      const at = {
        shape: put(module, shapeBytes(made.shape)),
        q: put(module, made.q),
        k: put(module, made.k.bytes),
        v: put(module, made.v.bytes),
        out: put(module, new Uint8Array(sizes.out).fill(0xa5)),
      };
      const heap = Math.min(...Object.values(at));
      /**
       * @param {Partial<Shape>} shape @param {Partial<typeof at>} pointers @param {number} status
       */
      const call = (shape, pointers, status) => {
        const what = `type ${kvType}, ${JSON.stringify({ ...shape, ...pointers })}`;
        const p = { ...at, ...pointers };
        put(module, shapeBytes({ ...made.shape, ...shape }), at.shape);
        const before = module.u8.slice(heap);
        assert.equal(module.exports.fm_flash_attention(p.shape, p.q, p.k, p.v, p.out), status, what);
        if (status !== STATUS.OK)
          assert.equal(Buffer.compare(before, module.u8.slice(heap)), 0, `${what}: memory changed`);
      };
      for (const type of [-1, 2, 3, 7, 9, 30, 1000]) call({ kvType: type }, {}, STATUS.TYPE);
      for (const zero of ['nTokens', 'nHeads', 'nKvHeads', 'headSize', 'nPositions']) {
        call({ [zero]: 0 }, {}, STATUS.SHAPE);
      }
      for (const headSize of [577, 608, 2 ** 31, 2 ** 32 - 32]) call({ headSize }, {}, STATUS.SHAPE);
      if (kvType === KV.Q8_0)
        for (const headSize of [1, 16, 31, 33, 48]) call({ headSize }, {}, STATUS.SHAPE);
      for (const nHeads of [1, 3, 5]) call({ nHeads }, {}, STATUS.SHAPE);
      for (const shape of [
        { nTokens: 2 ** 32 - 1 },
        { nHeads: 2 ** 32 - 2 },
        { nPositions: 2 ** 32 - 1 },
        { nPositions: 2 ** 28 },
        { nTokens: 2 ** 26, nHeads: 4 },
        { nTokens: 2 ** 31, nHeads: 2 ** 31 },
        { nHeads: 2 ** 31, nKvHeads: 2 ** 31 },
      ]) {
        call(shape, {}, STATUS.SHAPE);
      }
      const end = module.u8.length;
      for (const name of /** @type {const} */ (['shape', 'q', 'k', 'v', 'out'])) {
        const alignment = (name === 'k' || name === 'v') && kvType !== KV.F32 ? 2 : 4;
        for (let off = 1; off < alignment; off++) call({}, { [name]: at[name] + off }, STATUS.ALIGN);
        const last = end - sizes[name];
        for (const outside of [0, 1024, last - (last % 4) + 4, end, end + PAGE, 2 ** 32 - 64]) {
          call({}, { [name]: outside }, STATUS.RANGE);
        }
      }
      call({ nPositions: Math.ceil(end / (2 * made.shape.headSize)) }, {}, STATUS.RANGE);
      call({ nTokens: Math.ceil(end / (4 * made.shape.headSize)) }, {}, STATUS.RANGE);
      for (const name of /** @type {const} */ (['shape', 'q', 'k', 'v'])) {
        const lastWord = Math.floor((sizes[name] - 1) / 4) * 4;
        call({}, { out: at[name] }, STATUS.OVERLAP);
        call({}, { out: at[name] + lastWord }, STATUS.OVERLAP);
        call({}, { out: at[name] - sizes.out + 4 }, STATUS.OVERLAP);
      }
      const sinks = module.alloc(4 * made.shape.nHeads);
      const callWith = (
        /** @type {number} */ sinksAt,
        /** @type {number} */ out,
        /** @type {number} */ status,
      ) => {
        put(module, shapeBytes(made.shape, sinksAt), at.shape);
        const before = module.u8.slice(heap);
        const got = module.exports.fm_flash_attention(at.shape, at.q, at.k, at.v, out);
        assert.equal(got, status, `sinks at ${sinksAt}, out at ${out}`);
        if (status !== STATUS.OK) assert.equal(Buffer.compare(before, module.u8.slice(heap)), 0);
      };
      for (const off of [1, 2, 3]) callWith(sinks + off, at.out, STATUS.ALIGN);
      for (const outside of [4, 1024, end - 12, end, 2 ** 32 - 64]) callWith(outside, at.out, STATUS.RANGE);
      callWith(at.out + sizes.out - 4, at.out, STATUS.OVERLAP);
      callWith(at.out - 4 * made.shape.nHeads + 4, at.out, STATUS.OVERLAP);
      callWith(sinks, at.out, STATUS.OK);
      module.free(sinks);
      call({}, {}, STATUS.OK);
      call({}, { k: at.v, v: at.k }, STATUS.OK);
      call({}, { k: at.k, v: at.k }, STATUS.OK);
      for (const p of [room, ...Object.values(at)]) module.free(p);
    }
  });

  test(`attention ABI: ${module.name} module: fused_attention_score refuses what does not fit`, () => {
    const [nQ, nK, headSize] = [3, 5, 6];
    const sizes = { q: 4 * nQ * headSize, k: 4 * nK * headSize, out: 4 * nQ * nK };
    const room = module.alloc(sizes.out);
    const at = { q: module.alloc(sizes.q), k: module.alloc(sizes.k), out: module.alloc(sizes.out) };
    const valid = { ...at, nQ, nK, headSize };
    module.u8.fill(0, at.q, at.q + sizes.q);
    module.u8.fill(0, at.k, at.k + sizes.k);
    const heap = Math.min(...Object.values(at));
    const call = (/** @type {Partial<typeof valid>} */ changes, /** @type {number} */ status) => {
      const a = { ...valid, ...changes };
      const before = module.u8.slice(heap);
      const got = module.exports.fused_attention_score(a.q, a.k, a.out, a.nQ, a.nK, a.headSize, 1, 0);
      assert.equal(got, status, JSON.stringify(changes));
      if (status !== STATUS.OK)
        assert.equal(Buffer.compare(before, module.u8.slice(heap)), 0, JSON.stringify(changes));
    };
    for (const zero of ['nQ', 'nK', 'headSize']) call({ [zero]: 0 }, STATUS.SHAPE);
    for (const changes of [
      { headSize: 577 },
      { nQ: 2 ** 32 - 1 },
      { nK: 2 ** 32 - 1 },
      { nQ: 2 ** 16, nK: 2 ** 16, headSize: 1 },
      { nQ: 2 ** 30, nK: 1, headSize: 1 },
    ]) {
      call(changes, STATUS.SHAPE);
    }
    const end = module.u8.length;
    for (const name of /** @type {const} */ (['q', 'k', 'out'])) {
      for (let off = 1; off < 4; off++) call({ [name]: at[name] + off }, STATUS.ALIGN);
      for (const outside of [0, 1024, end - sizes[name] + 4, end, 2 ** 32 - 64]) {
        call({ [name]: outside }, STATUS.RANGE);
      }
    }
    for (const name of /** @type {const} */ (['q', 'k'])) {
      call({ out: at[name] }, STATUS.OVERLAP);
      call({ out: at[name] + sizes[name] - 4 }, STATUS.OVERLAP);
      call({ out: at[name] - sizes.out + 4 }, STATUS.OVERLAP);
    }
    call({}, STATUS.OK);
    call({ k: at.q, nK: 3 }, STATUS.OK);
    for (const p of [room, ...Object.values(at)]) module.free(p);
  });

  test(`attention ABI: ${module.name} module: nothing is read past the end of the memory`, () => {
    const fresh = freshModule(module.name);
    fresh.exports.memory.grow(20);
    const end = fresh.exports.memory.buffer.byteLength;
    const prng = new Prng(3);
    for (const variant of fresh.variants) {
      fresh.select(variant);
      for (const kvType of Object.values(KV)) {
        for (const headSize of kvType === KV.Q8_0 ? [32, 64] : [1, 3, 8, 13, 64]) {
          for (const nTokens of [1, 3]) {
            for (const nPositions of [1, 2, 17]) {
              const made = makeCase(makeShape({ kvType, headSize, nTokens, nPositions }), prng);
              const sizes = sizesOf(made);
              const reference = referenceAttention(made);
              for (const last of /** @type {const} */ (['shape', 'q', 'k', 'v', 'out'])) {
                const at = {
                  shape: end - PAGE,
                  q: end - 2 * PAGE,
                  k: end - 4 * PAGE,
                  v: end - 6 * PAGE,
                  out: end - 8 * PAGE,
                };
                at[last] = end - sizes[last];
                put(fresh, shapeBytes(made.shape), at.shape);
                put(fresh, made.q, at.q);
                put(fresh, made.k.bytes, at.k);
                put(fresh, made.v.bytes, at.v);
                const what = `${variant.label}, type ${kvType}, ${headSize} x ${nPositions}, ${last} last`;
                assert.equal(
                  fresh.exports.fm_flash_attention(at.shape, at.q, at.k, at.v, at.out),
                  STATUS.OK,
                  what,
                );
                checkWithin(
                  new Float32Array(fresh.u8.slice(at.out, at.out + sizes.out).buffer),
                  reference,
                  what,
                );
              }
              if (kvType !== KV.F32) continue;
              const k = end - 4 * nPositions * headSize;
              const scores = end - 8 * PAGE;
              const { fused_attention_score } = fresh.exports;
              assert.equal(
                fused_attention_score(end - 2 * PAGE, k, scores, 3, nPositions, headSize, 1, 1),
                STATUS.OK,
              );
              const out = end - 12 * nPositions;
              assert.equal(
                fused_attention_score(end - 2 * PAGE, end - 4 * PAGE, out, 3, nPositions, headSize, 1, 1),
                STATUS.OK,
              );
            }
          }
        }
      }
    }
  });

  test(`attention ABI: ${module.name} module: 32768 positions take no more memory than 32`, () => {
    const fresh = freshModule(module.name);
    const nPositions = 32768;
    const prng = new Prng(4);
    for (const kvType of [KV.F16, KV.Q8_0]) {
      const shape = { kvType, nHeads: 2, nKvHeads: 1, headSize: 32, nPositions, causal: 1 };
      const made = makeCase(makeShape({ ...shape, nTokens: 5, firstPosition: nPositions - 5 }), prng);
      /* the first token alone uses the decode path */
      const single = { ...made, shape: { ...made.shape, nTokens: 1 }, q: made.q.subarray(0, 64) };
      const at = {
        shape: put(fresh, new Uint8Array(44)),
        q: put(fresh, made.q),
        k: put(fresh, made.k.bytes),
        v: put(fresh, made.v.bytes),
        out: fresh.alloc(made.q.byteLength),
      };
      const settled = fresh.exports.memory.buffer.byteLength;
      for (const { made: used, reference } of [made, single].map((one) => ({
        made: one,
        reference: referenceAttention(one),
      }))) {
        for (const variant of fresh.variants) {
          fresh.select(variant);
          put(fresh, shapeBytes(used.shape), at.shape);
          const before = fresh.u8.slice(at.shape);
          assert.equal(fresh.exports.fm_flash_attention(at.shape, at.q, at.k, at.v, at.out), STATUS.OK);
          const what = `${variant.label}, type ${kvType}, ${used.shape.nTokens} tokens`;
          assert.equal(fresh.exports.memory.buffer.byteLength, settled, `${what}: the memory grew`);
          const outBytes = used.q.byteLength;
          const y = new Float32Array(fresh.u8.slice(at.out, at.out + outBytes).buffer);
          checkWithin(y, reference, what);
          /* weights near 1 / 32768: the errors are random and far below the bound */
          const norm = Math.hypot(...reference.out);
          const error = Math.hypot(...y.map((value, i) => value - reference.out[i]));
          assert.ok(error <= 1e-5 * norm, `${what}: ${error / norm} norm-wise`);
          const after = fresh.u8.slice(at.shape);
          for (const bytes of [before, after]) bytes.fill(0, at.out - at.shape, at.out - at.shape + outBytes);
          assert.equal(Buffer.compare(before, after), 0, `${what}: the heap is untouched but for the output`);
        }
      }
      for (const p of Object.values(at)) fresh.free(p);
    }
    assert.deepEqual(seenBy(makeShape({ nPositions, causal: 1, firstPosition: 7 }), 2), [0, 10]);
    /* the heap begins low: static data, with the scratch memory of every operation, is small */
    assert.ok(fresh.alloc(64) < 2 * 1024 * 1024);
  });
}
