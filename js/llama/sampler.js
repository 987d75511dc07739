/* Chooses the next token from logits, in the order of llama.cpp: penalties, top-k, top-p,
 * min-p, temperature, and the draw. Only candidates are sorted; a vocabulary of 150,000 tokens is
 * scanned once or twice. */

/** @typedef {import('../backend.js').TokenSampler} TokenSampler */

/**
 * @typedef {object} SamplerOptions
 * @property {number} temperature  0 takes the most likely token.
 * @property {number} topK  Keep the K most likely tokens; 0 keeps all.
 * @property {number} topP  Keep the smallest set of tokens whose probabilities add up to this.
 * @property {number} minP  Drop tokens below minP times the top probability.
 * @property {number} repeatPenalty  Logits of the tokens in the window are divided by this, negative ones
 *   multiplied.
 * @property {number} frequencyPenalty  Subtracted from a logit for each time the token is in the window.
 * @property {number} presencePenalty  Subtracted from the logits of the tokens in the window.
 * @property {number} repeatWindow  Number of last tokens that the penalties look at.
 * @property {number} seed  An integer.
 */

/** How many candidates are sorted at first, if only a probability limits them. */
const FIRST_CANDIDATES = 128;

/** @implements {TokenSampler} */
export class Sampler {
  #numbers;
  /** Random numbers drawn so far. */
  draws = 0;

  /** @param {SamplerOptions} options */
  constructor(options) {
    this.options = options;
    const { repeatPenalty, frequencyPenalty, presencePenalty, repeatWindow } = options;
    const isAny = repeatPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
    /** Whether next() reads the history. */
    this.needsHistory = isAny && repeatWindow > 0;
    this.#numbers = sfc32(options.seed);
  }

  /** Goes on as after so many random numbers. @param {number} draws */
  rewind(draws) {
    this.#numbers = sfc32(this.options.seed);
    for (this.draws = 0; this.draws < draws; ) this.#random();
  }

  #random() {
    this.draws += 1;
    return this.#numbers();
  }

  /**
   * @param {Float32Array} logits  overwritten if there is a penalty
   * @param {ArrayLike<number>} history  tokens so far
   * @returns {number}
   */
  next(logits, history) {
    const { temperature, topK, topP, minP } = this.options;
    if (this.needsHistory) this.#penalise(logits, history);
    if (temperature === 0) return argmax(logits);
    const ids = candidates(logits, topK, topP, minP);
    return ids
      ? draw(
          ids,
          Float32Array.from(ids, (id) => logits[id]),
          temperature,
          this.#random(),
        )
      : drawAny(logits, temperature, this.#random());
  }

  /** @param {Float32Array} logits @param {ArrayLike<number>} history */
  #penalise(logits, history) {
    const { repeatPenalty, frequencyPenalty, presencePenalty, repeatWindow } = this.options;
    /** @type {Map<number, number>} */
    const times = new Map();
    for (const id of Array.prototype.slice.call(history, -repeatWindow))
      times.set(id, (times.get(id) ?? 0) + 1);
    for (const [id, n] of times) {
      const repeated = logits[id] > 0 ? logits[id] / repeatPenalty : logits[id] * repeatPenalty;
      logits[id] = repeated - n * frequencyPenalty - presencePenalty;
    }
  }

  /**
   * The token that next() chooses, by the largest logits alone. It needs topK of them, or all,
   * where topK is not 0, a temperature over 0, and no penalty.
   * @param {Uint32Array} ids  largest logit first; of equal ones the lower id first
   * @param {Float32Array} values  their logits
   * @param {number} nVocab
   */
  among(ids, values, nVocab) {
    const { temperature, topK, topP, minP } = this.options;
    if (topK >= nVocab) {
      const logits = new Float32Array(nVocab);
      for (const [i, id] of ids.entries()) logits[id] = values[i];
      return this.next(logits, []);
    }
    const some = values.subarray(0, topK);
    const { kept } = keep(some, sumOfExp(some, some[0], topP < 1), topP, minP);
    return draw(ids, some.subarray(0, kept), temperature, this.#random());
  }
}

/**
 * Index of the largest value; of equal ones the first.
 * @param {Float32Array} logits
 */
export function argmax(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/**
 * The tokens that may be drawn, most likely first; undefined means all.
 * @param {Float32Array} logits
 * @param {number} topK
 * @param {number} topP
 * @param {number} minP
 * @returns {Uint32Array | undefined}
 */
export function candidates(logits, topK, topP, minP) {
  const limit = topK > 0 ? Math.min(topK, logits.length) : logits.length;
  const unbounded = limit === logits.length;
  if (unbounded && topP >= 1 && minP <= 0) return undefined;
  // Top-p is a share of the probability that the candidates of top-k have together.
  const all = unbounded ? sumOfExp(logits, logits[argmax(logits)], topP < 1) : 0;
  for (let n = unbounded ? Math.min(FIRST_CANDIDATES, limit) : limit; ; n = Math.min(limit, 16 * n)) {
    const ids = largest(logits, n);
    const values = Float32Array.from(ids, (id) => logits[id]);
    const total = unbounded ? all : sumOfExp(values, values[0], topP < 1);
    const { kept, enough } = keep(values, total, topP, minP);
    if (enough || n === limit) return ids.subarray(0, Math.max(1, kept));
  }
}

/**
 * How many of the largest logits top-p and min-p keep, and whether they would keep no more of the
 * smaller ones.
 * @param {Float32Array} values  largest first
 * @param {number} total  sum of e^(value - largest) that topP is a share of
 * @param {number} topP
 * @param {number} minP
 */
function keep(values, total, topP, minP) {
  const peak = values[0];
  const lowest = minP > 0 ? peak + Math.log(minP) : Number.NEGATIVE_INFINITY;
  let kept = 0;
  let mass = 0;
  let enough = false;
  while (kept < values.length && !enough) {
    const value = values[kept];
    if (kept > 0 && !(value >= lowest)) enough = true;
    else {
      kept += 1;
      mass += Math.exp(value - peak);
      enough = topP < 1 && mass >= topP * total;
    }
  }
  return { kept, enough };
}

/**
 * The ids of the n largest values, largest first; of equal values the lower id first.
 * @param {Float32Array} values
 * @param {number} n
 */
export function largest(values, n) {
  const order = (/** @type {number} */ a, /** @type {number} */ b) => values[b] - values[a] || a - b;
  if (n >= values.length / 8) {
    // Sorting numbers is many times faster than sorting ids by number, so only the ids that are
    // kept are sorted.
    const bar = values.slice().sort()[values.length - n];
    const ids = new Uint32Array(n);
    let kept = 0;
    for (let i = 0; i < values.length; i++) if (values[i] > bar) ids[kept++] = i;
    for (let i = 0; kept < n && i < values.length; i++) if (values[i] === bar) ids[kept++] = i;
    return ids.subarray(0, kept).sort(order);
  }
  // A heap of the n largest so far, with the smallest of them on top.
  const heap = new Uint32Array(n);
  const worse = (/** @type {number} */ a, /** @type {number} */ b) =>
    values[a] < values[b] || (values[a] === values[b] && a > b);
  const sink = (/** @type {number} */ at, /** @type {number} */ id) => {
    let i = at;
    for (let child = 2 * i + 1; child < n; child = 2 * i + 1) {
      if (child + 1 < n && worse(heap[child + 1], heap[child])) child += 1;
      if (!worse(heap[child], id)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = id;
  };
  for (let i = 0; i < n; i++) heap[i] = i;
  for (let i = (n >> 1) - 1; i >= 0; i--) sink(i, heap[i]);
  let bar = values[heap[0]];
  for (let i = n; i < values.length; i++) {
    if (values[i] > bar) {
      sink(0, i);
      bar = values[heap[0]];
    }
  }
  return heap.sort(order);
}

/**
 * @param {Float32Array} logits
 * @param {number} peak
 * @param {boolean} isNeeded  false: the sum is 0
 */
function sumOfExp(logits, peak, isNeeded) {
  let sum = 0;
  if (isNeeded) for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - peak);
  return sum;
}

/**
 * @param {Uint32Array} ids  candidates, most likely first
 * @param {Float32Array} values  their logits
 * @param {number} temperature
 * @param {number} random  from 0 to 1
 */
function draw(ids, values, temperature, random) {
  const peak = values[0];
  const weights = Float64Array.from(values, (value) => Math.exp((value - peak) / temperature));
  let left = random * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [i, weight] of weights.entries()) {
    left -= weight;
    if (left < 0) return ids[i];
  }
  return ids[0];
}

/**
 * Draws among all tokens, without sorting.
 * @param {Float32Array} logits
 * @param {number} temperature
 * @param {number} random
 */
function drawAny(logits, temperature, random) {
  const best = argmax(logits);
  const peak = logits[best];
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += Math.exp((logits[i] - peak) / temperature);
  let left = random * total;
  for (let i = 0; i < logits.length; i++) {
    left -= Math.exp((logits[i] - peak) / temperature);
    if (left < 0) return i;
  }
  return best;
}

/**
 * Random numbers from 0 to 1, the same on every engine (sfc32 by Chris Doty-Humphrey, public
 * domain).
 * @param {number} seed
 */
function sfc32(seed) {
  let [a, b, c, counter] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, 0x9e3779b9, 1];
  const next = () => {
    const t = (a + b + counter) >>> 0;
    counter = (counter + 1) >>> 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) >>> 0;
    c = (((c << 21) | (c >>> 11)) + t) >>> 0;
    return t / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}
