/**
 * The wasm modules without the JavaScript library: files of dist/, exports of src/fused.h, raw
 * memory.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './test-data.js';

export const STATUS = { OK: 0, TYPE: 1, SHAPE: 2, RANGE: 3, ALIGN: 4, OVERLAP: 5, ACTIVATION: 6, ISA: 7 };
export const ISA_NAMES = /** @type {const} */ (['scalar', 'simd128', 'relaxed']);
const DOT_NAMES = ['i16', 'i32'];
/**
 * The byte around all inputs and outputs. It makes NaN as f16, bf16 and f32, and is never a result.
 */
const GUARD = 0xff;
const GUARD_BYTES = 64;

/**
 * @typedef {{ id: number, blockValues: number, blockBytes: number, alignment: number }} ModuleType
 */
/** @typedef {{ label: string, isa: number, dot: number }} Variant */

export class RawModule {
  /** @param {string} name @param {WebAssembly.Instance} instance @param {Uint8Array} bytes */
  constructor(name, instance, bytes) {
    this.name = name;
    this.bytes = bytes;
    /** @type {any} */
    this.exports = instance.exports;
    this.exports._initialize?.();
    /** @type {ModuleType[]} */
    this.types = [];
    for (let id = 0; id < 256; id++) {
      const blockValues = this.exports.fm_type_block_values(id);
      if (blockValues === 0) continue;
      const blockBytes = this.exports.fm_type_block_bytes(id);
      this.types.push({ id, blockValues, blockBytes, alignment: this.exports.fm_type_alignment(id) });
    }
    /** @type {Variant[]} every instruction set and dot this module holds */
    this.variants = [];
    const isaBefore = this.exports.fm_isa();
    for (const [isa, isaName] of ISA_NAMES.entries()) {
      for (const [dot, dotName] of DOT_NAMES.entries()) {
        if (dot > 0 && isaName !== 'relaxed') continue;
        if (this.exports.fm_select(isa, dot) !== STATUS.OK) continue;
        const label = isaName === 'relaxed' ? `${isaName} ${dotName}` : isaName;
        this.variants.push({ label: `${name} module, ${label}`, isa, dot });
      }
    }
    this.exports.fm_select(isaBefore, 0);
  }

  /** @param {Variant} variant */
  select(variant) {
    assert.equal(this.exports.fm_select(variant.isa, variant.dot), STATUS.OK, variant.label);
  }

  /** @returns {Uint8Array} a view of the memory as it is now; memory growth detaches it */
  get u8() {
    return new Uint8Array(this.exports.memory.buffer);
  }

  /** @param {number} bytes @returns {number} never 0 */
  alloc(bytes) {
    const p = this.exports.fm_alloc(bytes) >>> 0;
    assert.notEqual(p, 0, `fm_alloc(${bytes})`);
    return p;
  }

  /** @param {number} p */
  free(p) {
    this.exports.fm_free(p);
  }

  /**
   * @param {number} typeId @param {number} activation
   * @returns {{ isa: number, activation: number }}
   */
  servedBy(typeId, activation) {
    const served = this.exports.fm_served_by(typeId, activation);
    assert.ok(served >= 0, `fm_served_by(${typeId}, ${activation}) is ${served}`);
    return { isa: served & 255, activation: served >> 8 };
  }

  /**
   * Lays the inputs and then room for the output into one allocation, each behind a guard and at no
   * better alignment than it needs. Makes the call and checks that nothing but the output has
   * changed.
   * @param {{ bytes: Uint8Array, alignment: number }[]} inputs
   * @param {{ bytes: number, alignment: number }} output
   * @param {(pointers: number[], output: number) => number} call
   * @returns {{ status: number, output: Uint8Array<ArrayBuffer> }} output: 0xff in bytes that were
   *   not written
   */
  guardedBytes(inputs, output, call) {
    const parts = [
      ...inputs,
      { bytes: new Uint8Array(output.bytes).fill(GUARD), alignment: output.alignment },
    ];
    /** @type {number[]} */
    const offsets = [];
    let end = GUARD_BYTES;
    for (const part of parts) {
      const start = Math.ceil(end / 64) * 64 + part.alignment;
      offsets.push(start);
      end = start + part.bytes.length + GUARD_BYTES;
    }
    const before = new Uint8Array(end).fill(GUARD);
    parts.forEach((part, i) => {
      before.set(part.bytes, offsets[i]);
    });
    const base = this.alloc(end);
    try {
      this.u8.set(before, base);
      const pointers = offsets.map((offset) => base + offset);
      const outputPointer = /** @type {number} */ (pointers.pop());
      const status = call(pointers, outputPointer);
      const after = this.u8.slice(base, base + end);
      const outputAt = outputPointer - base;
      const written = after.slice(outputAt, outputAt + output.bytes);
      after.fill(GUARD, outputAt, outputAt + output.bytes);
      if (Buffer.compare(before, after) !== 0) {
        const at = before.findIndex((byte, i) => byte !== after[i]);
        assert.fail(`a byte outside the output changed, ${at - outputAt} bytes from its start`);
      }
      return { status, output: written };
    } finally {
      this.free(base);
    }
  }

  /**
   * guardedBytes for f32 outputs.
   * @param {{ bytes: Uint8Array, alignment: number }[]} inputs @param {number} outputValues
   * @param {(pointers: number[], output: number) => number} call
   * @returns {{ status: number, y: Float32Array<ArrayBuffer> }}
   */
  guarded(inputs, outputValues, call) {
    const { status, output } = this.guardedBytes(inputs, { bytes: 4 * outputValues, alignment: 4 }, call);
    return { status, y: new Float32Array(output.buffer) };
  }

  /**
   * @param {ModuleType} type @param {Uint8Array} w @param {Float32Array} x
   * @param {number} nTokens @param {number} nRows @param {number} nCols @param {number} activation
   * @returns {{ status: number, y: Float32Array }}
   */
  matmul(type, w, x, nTokens, nRows, nCols, activation) {
    const xBytes = new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
    return this.guarded(
      [
        { bytes: w, alignment: type.alignment },
        { bytes: xBytes, alignment: 4 },
      ],
      nTokens * nRows,
      ([wAt, xAt], yAt) =>
        this.exports.fused_matmul(type.id, wAt, xAt, yAt, nTokens, nRows, nCols, activation),
    );
  }

  /** @param {ModuleType} type @param {Uint8Array} w @param {number} nRows @param {number} nCols */
  dequantize(type, w, nRows, nCols) {
    return this.guarded([{ bytes: w, alignment: type.alignment }], nRows * nCols, ([wAt], yAt) =>
      this.exports.fm_dequantize_rows(type.id, wAt, yAt, nRows, nCols),
    );
  }
}

/** @param {string} name  an instruction set's name @returns {string} */
export const modulePath = (name) => join(projectRoot, 'dist', `fused-${name}.wasm`);

/**
 * A new instance of dist/fused-NAME.wasm, or the reason why this engine cannot have one.
 * @param {string} name
 * @returns {{ module: RawModule, reason?: undefined } | { module?: undefined, reason: string }}
 */
export function openModule(name) {
  const path = modulePath(name);
  assert.ok(existsSync(path), `dist/fused-${name}.wasm is missing: npm run build`);
  const bytes = new Uint8Array(readFileSync(path));
  if (!WebAssembly.validate(bytes)) {
    const engine = `Node ${process.versions.node}, V8 ${process.versions.v8}`;
    return {
      reason: `${engine} does not take dist/fused-${name}.wasm (its instruction set is off or absent)`,
    };
  }
  const imports = { env: { emscripten_notify_memory_growth() {} } };
  return {
    module: new RawModule(name, new WebAssembly.Instance(new WebAssembly.Module(bytes), imports), bytes),
  };
}

/**
 * @param {string} name
 * @returns {RawModule} a separate instance of a module that this engine is known to accept
 */
export function freshModule(name) {
  const { module, reason } = openModule(name);
  assert.ok(module, reason);
  return module;
}

/** Every module of dist/ that this engine accepts, and the reasons for the others. */
export function openModules() {
  /** @type {RawModule[]} */
  const modules = [];
  /** @type {{ name: string, reason: string }[]} */
  const skipped = [];
  for (const name of ISA_NAMES) {
    const { module, reason } = openModule(name);
    if (module) modules.push(module);
    else skipped.push({ name, reason });
  }
  return { modules, skipped };
}
