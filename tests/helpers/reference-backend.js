/**
 * A backend in plain float64 JavaScript with the formulas of js/llama/plan.js: the reference for
 * every block. It is written to be read, and slow. As on a GPU, a call of a block is only recorded,
 * and computed when something is read. Code that works on this backend does not depend on results
 * being there at once.
 */

import { ShapeError } from '../../js/errors.js';
import { isCausal } from '../../js/llama/layers.js';
import { checkNumbers } from '../../js/llama/numeric.js';
import { arrange } from '../../js/llama/weights.js';
import { dequantizeF64, referenceByName } from './reference.js';
import { mixReference } from './reference-experts.js';
import {
  addTo,
  attention,
  byHead,
  cap,
  factorOf,
  normalize,
  normalizeQk,
  turn,
} from './reference-formulas.js';
import { addInput, inputsReference } from './reference-inputs.js';
import { latentProjection, latentResults } from './reference-latent.js';
import { ReferenceState, recurrentRow } from './reference-recurrent.js';
import { ACTIVATIONS, Freeable, Matrix, multiply, plus } from './reference-rows.js';

/**
 * @import { Backend as AnyBackend, BatchRows, Block, LoadOptions, Rows, RunSettings, Step,
 *   TokenSampler } from '../../js/backend.js'
 */
/** @import { GgufFile } from '../../js/gguf/file.js' */
/** @import { Place } from '../../js/llama/numeric.js' */
/**
 * @import { AttentionSettings, EmbeddingSettings, FeedSettings, HeadSettings, Plan,
 *   PlannedTensor, RecurrentSettings } from '../../js/llama/plan.js'
 */
/** @import { ReferenceType } from './reference.js' */

/**
 * @typedef {AnyBackend<{ hidden: ReferenceHidden, tensor: Matrix, cache: ReferenceCache,
 *   state: ReferenceState, tokens: ReferenceTokens }>} Backend
 */

/** Hidden states, queries and output gates that wait for attention, and values for all layers. */
class ReferenceHidden extends Matrix {
  /** @type {Float64Array[]} */
  queries = [];
  /** @type {Float64Array[]} */
  gates = [];
  /** @type {Float64Array[]} */
  inputs = [];
}

class ReferenceTokens extends Freeable {
  /** @param {number} length */
  constructor(length) {
    super();
    this.length = length;
    this.ids = new Uint32Array(length);
  }
}

class ReferenceCache extends Freeable {
  /** @param {number} nPositions @param {number} nCols */
  constructor(nPositions, nCols) {
    super();
    this.keys = new Matrix(nPositions, nCols);
    this.values = new Matrix(nPositions, nCols);
  }
}

/**
 * Where the tokens of a step stand: row, position, the place of position 0 in the cache, how many
 * positions the text has there, the token's number in the text, and whether it is the last of several.
 * @param {Step} at
 */
const placesOf = ({ position, seen, nTokens, texts }) =>
  (texts ?? [{ start: 0, nRows: nTokens, position, cached: 0, cache: undefined, state: undefined }]).flatMap(
    ({ start, nRows, position: first, cached: base, cache, state }) =>
      Array.from({ length: nRows }, (_, i) => ({
        ...{ t: start + i, position: first + i, base, i, cache, state },
        seen: texts ? first + nRows : seen,
        isLast: nRows > 1 && i === nRows - 1,
      })),
  );

/**
 * Sorts the rows of two matrices that alternate in one.
 * @param {Matrix} matrix @param {number} n  rows of each by turns
 */
function separate(matrix, n) {
  const rows = Array.from({ length: matrix.nRows }, (_, i) => [...matrix.row(i)]);
  const isSecond = (/** @type {number} */ i) => Math.floor(i / n) % 2 === 1;
  const sorted = [...rows.filter((_, i) => !isSecond(i)), ...rows.filter((_, i) => isSecond(i))];
  matrix.values.set(sorted.flat());
}

/** @implements {Backend} */
export class ReferenceBackend {
  info = { name: 'reference', memoryBytes: 0 };
  disposed = false;
  packs = true;
  /** Everything that was allocated. @type {Freeable[]} */
  made = [];
  /** The blocks that were called, by name. @type {string[]} */
  calls = [];
  #batch;
  #part;
  /** @type {(() => void)[]} */
  #queue = [];

  #late;

  /**
   * @param {object} [options]
   * @param {number} [options.batch]  as in Sizes
   * @param {number} [options.part]  likewise
   * @param {number} [options.ahead]  tokens that may be in flight; by default the method is missing
   * @param {() => Promise<unknown>} [options.late]  passes before what is waited for arrives
   */
  constructor({ batch = 3, part = 2, ahead, late = async () => {} } = {}) {
    this.#batch = batch;
    this.#part = part;
    this.#late = late;
    if (ahead !== undefined) this.ahead = () => ahead;
  }

  /** @returns {{ isa: 'scalar', activation: 'f32' }} */
  servedBy() {
    return { isa: 'scalar', activation: 'f32' };
  }

  /** @param {Plan} plan @returns {string[]} */
  lacks({ lowRank }) {
    return lowRank ? ['additions of adapters: merge them into the weights'] : [];
  }

  /** @param {Plan} plan @param {RunSettings} settings */
  sizes({ layers }, { contextLength }) {
    const batch = isCausal(layers) ? Math.min(this.#batch, contextLength) : contextLength;
    return { batch, part: Math.min(this.#part, batch), logitRows: 2, kvBytes: 0, workspaceBytes: 0 };
  }

  /**
   * @param {GgufFile} gguf @param {Plan} plan @param {readonly PlannedTensor[]} tensors
   * @param {LoadOptions} options
   */
  async loadWeights(gguf, plan, tensors, { onProgress, signal }) {
    /** @type {Map<string, Matrix>} */
    const byRole = new Map();
    const total = tensors.reduce((sum, { name }) => sum + gguf.tensor(name).byteLength, 0);
    let loaded = 0;
    for (const { role, name, nRows, nCols, alternating } of tensors) {
      const bytes = await gguf.read(name, { signal });
      const type = /** @type {ReferenceType} */ (referenceByName.get(gguf.tensor(name).type));
      const matrix = this.#make(new Matrix(nRows, nCols, dequantizeF64(type, bytes).values));
      if (alternating) separate(matrix, alternating);
      byRole.set(role, matrix);
      loaded += bytes.length;
      onProgress?.({ loaded, total });
    }
    // Of a bias, which has one row, values.
    const slice = (/** @type {Matrix} */ of, /** @type {Rows} */ { start, nRows: n }) => {
      const size = of.nRows === 1 ? 1 : of.nCols;
      const values = of.values.subarray(start * size, (start + n) * size);
      return of.nRows === 1 ? new Matrix(1, n, values) : new Matrix(n, size, values);
    };
    const all = [...byRole.values()];
    return {
      byRole: arrange(plan, byRole, slice),
      free: () => {
        for (const one of all) one.free();
      },
      get freed() {
        return all.every(({ freed }) => freed);
      },
    };
  }

  /** @param {readonly number[]} pieces */
  async fits(pieces) {
    return pieces.length;
  }

  /** @param {{ nRows: number, nCols: number }} shape */
  tensor({ nRows, nCols }) {
    return this.#make(new Matrix(nRows, nCols));
  }

  /** @param {Plan} plan @param {{ batch: number }} sizes */
  hidden({ nEmbd }, { batch }) {
    return this.#make(new ReferenceHidden(batch, nEmbd));
  }

  /** @param {number} length */
  tokens(length) {
    return this.#make(new ReferenceTokens(length));
  }

  /** @param {AttentionSettings} attention @param {RunSettings} settings */
  cache({ nKvHeads, headSize }, { contextLength }) {
    return this.#make(new ReferenceCache(contextLength, nKvHeads * headSize));
  }

  /** @param {RecurrentSettings} recurrent */
  state(recurrent) {
    return this.#make(new ReferenceState(recurrent));
  }

  /** @param {ReferenceCache | ReferenceState} part @param {number} nTokens */
  async save(part, nTokens) {
    await this.idle();
    if (part instanceof ReferenceState) return part.copy();
    const { keys, values } = part;
    const end = nTokens * keys.nCols;
    const all = [...keys.values.subarray(0, end), ...values.values.subarray(0, end)];
    return { at: [0], bytes: new Uint8Array(Float64Array.from(all).buffer) };
  }

  /**
   * @param {ReferenceCache | ReferenceState} part
   * @param {import('../../js/backend.js').Saved} saved @param {number} nTokens
   */
  async restore(part, saved, nTokens) {
    if (part instanceof ReferenceState) return part.fill(saved);
    const rows = new Float64Array(saved.bytes.slice().buffer);
    const n = nTokens * part.keys.nCols;
    if (rows.length !== 2 * n) throw new ShapeError('the cache has another size');
    part.keys.values.set(rows.subarray(0, n));
    part.values.values.set(rows.subarray(n));
  }

  /**
   * @param {ReferenceTokens} tokens @param {ReferenceHidden} x
   * @param {Block<EmbeddingSettings>} block @param {Step} at
   */
  embed(tokens, x, { settings, weights }, at) {
    const { position, start, nTokens } = at;
    const { table, positions, types, norm, normBias } = weights;
    this.#note('embed', () => {
      for (let t = 0; t < nTokens; t++) {
        /** @type {Float64Array} */
        let row = table.row(tokens.ids[position + t]);
        row = row.map((value) => settings.scale * value);
        const place = placesOf(at).find((one) => one.t === t)?.position ?? 0;
        if (positions) row = row.map((value, i) => value + positions.row(place)[i]);
        if (types) row = row.map((value, i) => value + types.row(0)[i]);
        x.row(start + t).set(normalize(row, settings.norm, norm, normBias));
        const { layerInputs } = settings;
        const token = tokens.ids[position + t];
        if (layerInputs) x.inputs[start + t] = inputsReference(x.row(start + t), token, layerInputs, weights);
      }
    });
  }

  /**
   * @param {ReferenceHidden} x @param {Block<AttentionSettings>} block
   * @param {ReferenceCache} cache @param {Step} step
   */
  project(x, { settings, weights }, cache, step) {
    const { start } = step;
    const { norm, qkNorm, valueNorm, kvBack, rope, temperature, headSize, latent } = settings;
    this.#note('project', () => {
      /** @param {Float64Array} h @param {'q' | 'k' | 'v'} name */
      const product = (h, name) =>
        plus(multiply(weights[name], h, weights[`${name}Factor`]), weights[`${name}Bias`]);
      /** @param {Float64Array} y @param {'q' | 'k'} name @param {number} at */
      const placed = (y, name, at) => {
        const weight = weights[`${name}Norm`];
        if (!qkNorm?.afterRope) y = normalizeQk(y, qkNorm, weight, headSize);
        if (rope) y = byHead(y, headSize, (head) => turn(head, rope, at, weights.ropeFactors));
        return qkNorm?.afterRope ? normalizeQk(y, qkNorm, weight, headSize) : y;
      };
      for (const { t, position, base, cache: own = cache } of placesOf(step)) {
        const h = normalize(x.row(start + t), norm, weights.norm, weights.normBias);
        const heat = temperature
          ? 1 + temperature.scale * Math.log(1 + Math.floor(position / temperature.length))
          : 1;
        if (weights.gate) x.gates[start + t] = multiply(weights.gate, h, weights.gateFactor);
        const { q, k } = latent
          ? latentProjection(h, settings, weights, normalize)
          : { q: product(h, 'q'), k: kvBack ? undefined : product(h, 'k') };
        x.queries[start + t] = placed(q, 'q', position).map((value) => heat * value);
        if (!k) continue;
        const key = placed(k, 'k', position);
        own.keys.row(base + position).set(key);
        const ones = new Matrix(1, headSize, new Float64Array(headSize).fill(1));
        const norms = valueNorm && /** @type {const} */ ({ kind: 'rms', eps: valueNorm.eps });
        const values = latent
          ? key
          : byHead(product(h, 'v'), headSize, (head) => normalize(head, norms, ones));
        own.values.row(base + position).set(values);
      }
    });
  }

  /**
   * @param {ReferenceHidden} x @param {Block<AttentionSettings>} block
   * @param {ReferenceCache} cache @param {Step} at
   */
  attend(x, { settings, weights }, cache, at) {
    const { start } = at;
    this.#note('attend', () => {
      for (const { t, cache: own = cache, ...place } of placesOf(at)) {
        const attended = attention(x.queries[start + t], own, settings, place, weights.sinks?.values);
        if (settings.outputGate)
          for (const [i, gate] of x.gates[start + t].entries()) attended[i] /= 1 + Math.exp(-gate);
        const values = settings.latent ? latentResults(attended, settings, weights) : attended;
        const y = plus(multiply(weights.output, values, weights.outputFactor), weights.outputBias);
        addTo(x.row(start + t), y, settings, weights);
      }
    });
  }

  /**
   * @param {ReferenceHidden} x @param {Block<RecurrentSettings>} block
   * @param {ReferenceState} state @param {Step} at
   */
  recur(x, { settings, weights }, state, at) {
    const { start } = at;
    const places = placesOf(at);
    const done = [...new Set(places.map(({ state: own = state }) => own))].map((own) => own.ask());
    this.#note('recur', () => {
      for (const { t, position, i, isLast, state: own = state } of places) {
        const row = x.row(start + t);
        if (i === 0) own.begin(position);
        if (isLast) own.save(position);
        const h = normalize(row, settings.norm, weights.norm);
        addTo(row, recurrentRow(h, own, settings, weights), settings, weights);
        own.position = position + 1;
      }
      if (at.texts?.some((text) => !text.state)) state.position = state.savedAt = -1;
      for (const end of done) end();
    });
  }

  /** @param {ReferenceHidden} x @param {Block<FeedSettings>} block @param {Step} at */
  feed(x, { settings, weights, layer = 0 }, { start, nTokens }) {
    const { layerInput } = settings;
    this.#note('feed', () => {
      for (let t = 0; t < nTokens; t++) {
        const row = x.row(start + t);
        this.#feedRow(row, settings, weights);
        if (layerInput) addInput(row, x.inputs[start + t], layer, layerInput, weights);
        const factor = weights.sumFactor?.values[0] ?? 1;
        row.set(row.map((value) => factor * value));
      }
    });
  }

  /** @param {Float64Array} row @param {FeedSettings} settings @param {Record<string, Matrix>} weights */
  #feedRow(row, settings, weights) {
    const h = normalize(row, settings.norm, weights.norm, weights.normBias);
    const act = ACTIVATIONS[settings.activation];
    if (settings.kind === 'experts') {
      const gated = (/** @type {number} */ gate, /** @type {number} */ up) =>
        act(gate) * factorOf(settings.activation, up);
      addTo(row, mixReference(row, h, settings, weights, gated), settings, weights);
      return;
    }
    const up = plus(multiply(weights.up, h, weights.upFactor), weights.upBias);
    const isGated = settings.kind === 'gated';
    const inner = isGated
      ? multiply(weights.gate, h, weights.gateFactor).map(
          (gate, i) => act(gate) * factorOf(settings.activation, up[i]),
        )
      : up.map(act);
    const down = multiply(weights.down, inner, weights.downFactor);
    addTo(row, plus(down, weights.downBias), settings, weights);
  }

  /**
   * @param {ReferenceHidden} x @param {Block<HeadSettings>} block @param {Matrix} logits
   * @param {BatchRows} rows
   */
  head(x, { settings, weights }, logits, { start, nRows, position }) {
    this.#note('head', () => {
      for (let t = 0; t < nRows; t++) {
        const h = normalize(x.row(start + t), settings.norm, weights.norm, weights.normBias);
        const y = multiply(weights.output, h, weights.outputFactor);
        logits.row(t).set(y.map((value) => cap(settings.scale * value, settings.softcap)));
      }
      finite(logits.values.subarray(0, nRows * logits.nCols), logits.nCols, { part: 'output', position });
    });
  }

  /** @param {ReferenceHidden} x @param {Step} at @param {Omit<Place, 'position'>} place */
  check({ values, nCols }, { position, start, nTokens }, place) {
    this.#note('check', () =>
      finite(values.subarray(start * nCols, (start + nTokens) * nCols), nCols, { ...place, position }),
    );
  }

  /** @param {ReferenceHidden} x @param {Block<HeadSettings>} block @param {BatchRows} rows */
  async readStates(x, { settings, weights }, { start, nRows, position }) {
    await this.idle();
    const rows = Array.from({ length: nRows }, (_, t) =>
      normalize(x.row(start + t), settings.norm, weights.norm, weights.normBias),
    );
    const values = Float32Array.from(rows.flatMap((row) => [...row]));
    finite(values, x.nCols, { part: 'output', position });
    return values;
  }

  /** @param {Float32Array} x @param {Matrix} matrix @param {Matrix} [bias] */
  async multiply(x, matrix, bias) {
    const rows = Array.from({ length: x.length / matrix.nCols }, (_, r) =>
      plus(multiply(matrix, Float64Array.from(x.subarray(r * matrix.nCols, (r + 1) * matrix.nCols))), bias),
    );
    return Float32Array.from(rows.flatMap((row) => [...row]));
  }

  /**
   * @param {Matrix} logits @param {number} row @param {ReferenceTokens} tokens
   * @param {TokenSampler} sampler @param {number} position
   */
  pick(logits, row, tokens, sampler, position) {
    this.#note('pick', () => {
      const values = Float32Array.from(logits.row(row));
      tokens.ids[position] = sampler.next(values, tokens.ids.subarray(0, position));
    });
  }

  /** @param {Matrix} from @param {Rows} [rows] */
  async read(from, { start, nRows } = { start: 0, nRows: from.nRows }) {
    await this.idle();
    const { nCols, values } = from;
    return Float32Array.from(values.subarray(start * nCols, (start + nRows) * nCols));
  }

  /** @param {Matrix} to @param {number} row @param {Float32Array} values */
  write(to, row, values) {
    const copy = values.slice();
    this.#note('write', () => to.values.set(copy, row * to.nCols));
  }

  /** @param {ReferenceTokens} from @param {number} start @param {number} n */
  async readTokens({ ids }, start, n) {
    /** @type {Uint32Array | undefined} */
    let read;
    const last = () => {
      read = ids.slice(start, start + n);
    };
    this.#queue.push(last);
    await null;
    // What is queued later belongs to other calls, and so do its errors.
    const mine = this.#queue.splice(0, this.#queue.indexOf(last) + 1);
    for (const work of mine) work();
    if (!read) throw new Error('work was dropped after an error');
    await this.#late();
    return read;
  }

  /** @param {ReferenceTokens} to @param {number} start @param {ArrayLike<number>} ids */
  writeTokens(to, start, ids) {
    const copy = Array.from(ids);
    this.#note('writeTokens', () => to.ids.set(copy, start));
  }

  flush() {}

  async idle() {
    await null;
    for (const work of this.#queue.splice(0)) work();
    await this.#late();
  }

  dispose() {
    this.disposed = true;
  }

  /** @param {string} name @param {() => void} work */
  #note(name, work) {
    this.calls.push(name);
    this.#queue.push(work);
  }

  /** @template {Freeable} T @param {T} one @returns {T} */
  #make(one) {
    this.made.push(one);
    return one;
  }
}

/** @param {ArrayLike<number>} values @param {number} nCols @param {Place} place */
const finite = (values, nCols, place) =>
  checkNumbers(Float32Array.from(values), 0, values.length, nCols, place, {
    activation: 'f32',
    kvType: 'F32',
  });
