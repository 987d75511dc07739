/* The choice of tokens and their way to the processor.
 *
 * The largest logit is found on the GPU and goes into the token list there, so the pass of the next
 * token can follow before anybody knows which it is. With a temperature, the processor draws among
 * the largest logits, which the GPU sorts out. Whatever needs more gets the row of logits. */

import { GpuError } from './errors.js';
import { Flight, MOST_AHEAD } from './flight.js';
import { up16 } from './shader.js';
import { NO_LAYER } from './wgsl/faults.js';
import { MAX_CANDIDATES, samplingPasses } from './wgsl/sample.js';

/** @typedef {import('../backend.js').TokenSampler} TokenSampler */
/** @typedef {import('./checked-reads.js').CheckedReads} CheckedReads */
/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./handles.js').GpuTensor} GpuTensor */
/** @typedef {import('./handles.js').GpuTokens} GpuTokens */
/** @typedef {import('./recorder.js').Recorder} Recorder */

/** Candidates that the GPU may leave, so that few kernels serve every sampler. */
const CANDIDATES = [64, MAX_CANDIDATES];

/**
 * Who chooses: the GPU alone (1), the processor among so many of the largest logits, or the
 * processor with all logits (0).
 * @param {TokenSampler} sampler
 */
function candidatesFor({ options: { temperature, topK }, among, needsAll, needsHistory }) {
  if (needsHistory || needsAll) return 0;
  if (temperature === 0) return 1;
  return (among && topK > 0 && CANDIDATES.find((n) => n >= topK)) || 0;
}

export class Picks {
  #gpu;
  #commands;
  #recorder;
  #reads;
  #check;
  #flight;
  /** When the last token arrived. */
  #arrived = 0;
  /**
   * The last token that the processor chose, and the dispatches before it.
   * @type {{ tokens: GpuTokens, position: number, dispatches: number } | undefined}
   */
  #drawn;

  /**
   * @param {object} means
   * @param {GpuDevice} means.gpu
   * @param {Commands} means.commands
   * @param {Recorder} means.recorder
   * @param {CheckedReads} means.reads
   * @param {(logits: GpuTensor) => void} means.check  looks for faults in a row that nobody has
   *   looked at
   * @param {number | undefined} means.ahead  tokens ahead; default: as measured
   */
  constructor({ gpu, commands, recorder, reads, check, ahead }) {
    this.#gpu = gpu;
    this.#commands = commands;
    this.#recorder = recorder;
    this.#reads = reads;
    this.#check = check;
    this.#flight = new Flight(ahead);
  }

  /** How many tokens may be ahead of the one that is read. @param {TokenSampler} sampler */
  ahead(sampler) {
    return candidatesFor(sampler) === 1 ? this.#flight.size : 0;
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {TokenSampler} sampler
   * @param {number} position
   */
  pick(logits, row, tokens, sampler, position) {
    const n = candidatesFor(sampler);
    if (n === 1) this.#pickLargest(logits, row, tokens, position);
    else if (n > 1) this.#pickAmong(n, logits, row, tokens, sampler, position);
    else this.#pickFromAll(logits, row, tokens, sampler, position);
  }

  /**
   * Tokens as they are when everything is done that was called before.
   * @param {GpuTokens} from
   * @param {number} start
   * @param {number} n
   * @returns {Promise<Uint32Array>}
   */
  async read(from, start, n) {
    /** @type {Promise<Uint32Array> | undefined} */
    let reading;
    // Here and not after what is called later: that may write the same positions.
    this.#recorder.add(() => {
      reading = this.#ids(from, start, n, true);
      reading.catch(() => {});
      return undefined;
    });
    await this.#recorder.drained();
    if (!reading) throw new GpuError('work before these tokens failed', 'command');
    return reading;
  }

  /** @param {GpuTokens} to @param {number} start @param {ArrayLike<number>} ids */
  write(to, start, ids) {
    const copy = Uint32Array.from(ids);
    this.#recorder.add(() => {
      this.#write(to, start, copy);
      return undefined;
    });
  }

  /**
   * Records the search for the largest logits.
   * @param {number} n  candidates
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {number} position
   * @returns {GpuBuffer} the candidates
   */
  #findLargest(n, logits, row, position) {
    const { unchecked } = logits;
    logits.unchecked = undefined;
    const passes = samplingPasses(logits.nCols, n, unchecked !== undefined);
    let values = logits.buffer;
    /** @type {GpuBuffer[]} */
    const left = this.#recorder.remembered(logits, `${n} candidates`, () => {
      this.#commands.reserve(n === 1 ? MOST_AHEAD + 1 : 1);
      return passes.map(({ nLeft }) =>
        this.#recorder.own(this.#gpu.buffer(8 * nLeft, { label: 'candidates' })),
      );
    });
    const work = passes.map(({ shader, groups }, i) => {
      const isFirst = i === 0 && unchecked;
      const buffers = { values, best: left[i], ...(isFirst && { y: unchecked.hidden.buffers.heads }) };
      values = left[i];
      return { shader, buffers, groups: () => groups };
    });
    const step = { position: unchecked?.position ?? position, start: row, nTokens: 1, seen: NO_LAYER };
    const operands = unchecked ? [unchecked.hidden] : [];
    this.#recorder.run({ owner: logits, operands, name: `largest ${n}` }, step, () => work);
    return /** @type {GpuBuffer} */ (left.at(-1));
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {number} position
   */
  #pickLargest(logits, row, tokens, position) {
    const best = this.#findLargest(1, logits, row, position);
    this.#recorder.add(() => {
      tokens.forget(position);
      this.#commands.copy({ buffer: best, offset: 4, bytes: 4 }, tokens.buffer, 4 * position);
      return undefined;
    });
  }

  /**
   * @param {number} n  candidates
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {TokenSampler} sampler
   * @param {number} position
   */
  #pickAmong(n, logits, row, tokens, sampler, position) {
    const best = this.#findLargest(n, logits, row, position);
    this.#byProcessor(tokens, position, async () => {
      const [bytes] = await this.#reads.read([{ buffer: best, offset: 0, bytes: 8 * n }]);
      const [words, numbers] = [new Uint32Array(bytes), new Float32Array(bytes)];
      const count = Math.min(n, logits.nCols);
      const ids = Uint32Array.from({ length: count }, (_, i) => words[2 * i + 1]);
      const values = Float32Array.from({ length: count }, (_, i) => numbers[2 * i]);
      const { among } = sampler;
      return /** @type {NonNullable<typeof among>} */ (among).call(sampler, ids, values, logits.nCols);
    });
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {TokenSampler} sampler
   * @param {number} position
   */
  #pickFromAll(logits, row, tokens, sampler, position) {
    this.#check(logits);
    const offset = 4 * row * up16(logits.nCols);
    this.#byProcessor(tokens, position, async () => {
      const history = sampler.needsHistory ? await this.#ids(tokens, 0, position, false) : [];
      const [values] = await this.#reads.read([{ buffer: logits.buffer, offset, bytes: 4 * logits.nCols }]);
      return sampler.next(new Float32Array(values), history);
    });
  }

  /**
   * A choice that the processor makes; what follows waits for it.
   * @param {GpuTokens} tokens
   * @param {number} position
   * @param {() => Promise<number>} choose
   */
  #byProcessor(tokens, position, choose) {
    let isDone = false;
    this.#recorder.add(() => {
      if (isDone) return undefined;
      return (async () => {
        this.#write(tokens, position, [await choose()]);
        this.#drawn = { tokens, position, dispatches: this.#commands.counts.dispatches };
        isDone = true;
      })();
    });
  }

  /** @param {GpuTokens} tokens @param {number} start @param {ArrayLike<number>} ids */
  #write(tokens, start, ids) {
    // Most often these are tokens that were chosen here.
    if (tokens.has(start, ids)) return;
    tokens.set(start, ids);
    this.#commands.write(tokens.buffer, 4 * start, Uint32Array.from(ids));
  }

  /**
   * Tokens as they are when everything is done that is recorded.
   * @param {GpuTokens} tokens
   * @param {number} start
   * @param {number} n
   * @param {boolean} checked  faults are looked for, also where the tokens are known
   */
  async #ids(tokens, start, n, checked) {
    const unknown = tokens.unknown(start, start + n);
    if (unknown) {
      const { first, count, versions } = unknown;
      const asked = performance.now();
      const [bytes] = await this.#reads.read([
        { buffer: tokens.buffer, offset: 4 * first, bytes: 4 * count },
      ]);
      const now = performance.now();
      this.#flight.took(now - Math.max(asked, this.#arrived));
      this.#arrived = now;
      const read = new Uint32Array(bytes);
      const ids = tokens.ids.slice(start, start + n);
      ids.set(read, first - start);
      tokens.learn(first, read, versions);
      return ids;
    }
    const ids = tokens.ids.slice(start, start + n);
    const drawn = this.#drawn;
    const isDrawn =
      n === 1 &&
      drawn?.tokens === tokens &&
      drawn.position === start &&
      drawn.dispatches === this.#commands.counts.dispatches;
    // The read of a choice has told of faults before.
    if (checked && !isDrawn) await this.#reads.read([]);
    return ids;
  }
}
