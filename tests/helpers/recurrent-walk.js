/**
 * Random series of calls on a model with recurrent layers, some of which are aborted or fail in the
 * middle of a pass, compared with a model that computes every text from its beginning.
 */
import assert from 'node:assert/strict';
import { Llama } from '../../js/llama/index.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */
/** @import { Prng } from './prng.js' */

export const SEED = Number(process.env.FM_TEST_SEED ?? 20261127);
/** Positions of the models. */
export const CONTEXT = 48;
export const GREEDY = { temperature: 0, ignoreEnd: true };
const BLOCKS = /** @type {const} */ (['embed', 'project', 'recur', 'attend', 'feed', 'head']);

/** @typedef {{ name: string, bytes: () => ArrayBuffer, nVocab: number }} Model */

/** The events of a watched model. */
class Watch {
  /** Logits that tokens were chosen from. @type {Float32Array[]} */
  chosen = [];
  /** Tokens of each pass. @type {number[]} */
  passes = [];
  /** Calls until `act`; Infinity: never. */
  left = Number.POSITIVE_INFINITY;
  act = () => {};
}

/**
 * Watches the calls of a backend.
 * @param {Backend} backend
 * @param {{ batch?: number, picks?: boolean }} [options]  picks: false where the device chooses tokens
 */
function watch(backend, { batch, picks = true } = {}) {
  const seen = new Watch();
  const { pick, sizes } = backend;
  const watchPick = (/** @type {Parameters<typeof pick>} */ ...[logits, row, tokens, sampler, position]) => {
    /** @type {typeof sampler} */
    const watching = {
      options: sampler.options,
      next: (values, history) => {
        seen.chosen.push(values.slice());
        return sampler.next(values, history);
      },
    };
    pick.call(backend, logits, row, tokens, watching, position);
  };
  if (picks) backend.pick = watchPick;
  if (batch)
    backend.sizes = (plan, settings) => ({ ...sizes.call(backend, plan, settings), batch, part: batch });
  for (const name of BLOCKS) {
    const block = /** @type {any} */ (backend)[name];
    /** @type {any} */ (backend)[name] = (/** @type {any[]} */ ...args) => {
      if (name === 'embed') seen.passes.push(args[3].nTokens);
      if (--seen.left < 0) {
        seen.left = Number.POSITIVE_INFINITY;
        seen.act();
      }
      return block.apply(backend, args);
    };
  }
  return seen;
}

/**
 * @param {Model} model @param {Backend} backend
 * @param {Parameters<typeof watch>[1]} [options]
 */
export async function load({ bytes }, backend, options) {
  const seen = watch(backend, options);
  const llama = await Llama.loadTo(async () => backend, bytes(), {
    ...{ activation: 'f32', kvType: 'F32', contextLength: CONTEXT },
  });
  return { llama, seen };
}

/**
 * Random calls; each generation is compared with logits that are computed from the beginning: every
 * token must have the largest, and those that it was chosen from must be the same, where they are seen.
 * @param {{ llama: Llama, seen: Watch }} one @param {Llama} fresh
 * @param {{ prng: Prng, nVocab: number, rounds: number, limit: number, hook?: boolean }} options  hook:
 *   half of the generations show their logits
 * @returns {Promise<Record<string, number>>} how often something happened
 */
export async function walk({ llama, seen }, fresh, { prng, nVocab, rounds, limit, hook }) {
  /** @type {Record<string, number>} */
  const counts = { checked: 0, aborted: 0, failed: 0, reused: 0 };
  const random = (/** @type {number} */ n) => Array.from({ length: n }, () => prng.int(3, nVocab - 1));
  /** The text so far, as far as the model knows it. */
  let past = random(4);
  const next = () => {
    const at = prng.int(1, past.length);
    const kind = prng.int(0, 6);
    if (kind === 0) return random(prng.int(1, 9));
    if (kind === 1) return past.slice(0, at);
    if (kind === 2) return [...past.slice(0, at), ...random(prng.int(1, 4))];
    if (kind === 3) return past.slice(0, Math.max(1, past.length - 1));
    return [...past, ...random(prng.int(kind === 4 ? 0 : 1, 4))];
  };
  for (let round = 0; round < rounds; round++) {
    const prompt = next().slice(0, CONTEXT - 10);
    const maxTokens = prng.int(1, 7);
    const what = `round ${round}, seed ${SEED}: ${prompt} and ${maxTokens} tokens`;
    seen.chosen = [];
    const fate = prng.int(0, 9);
    if (fate === 0) await llama.embed(['一', '丁七', '丈'].slice(0, prng.int(1, 3)));
    if (fate === 1) await llama.logits(random(prng.int(1, 6)));
    const abort = new AbortController();
    /** @type {GenerateOptions} */
    const options = { ...GREEDY, maxTokens, signal: abort.signal };
    // A call that was aborted may show its last logits later.
    const { chosen } = seen;
    if (hook && prng.int(0, 1) === 0) options.logits = (row) => void chosen.push(row.slice());
    if (fate >= 7) {
      seen.left = prng.int(0, 40);
      seen.act = () => {
        if (fate === 9) throw new Error('interrupted');
        abort.abort(new Error('interrupted'));
      };
    }
    const run = llama.generate(prompt, options);
    const stop = fate === 2 ? prng.int(0, maxTokens) : maxTokens;
    try {
      for (let i = 0; i < stop; i++) await run.next();
      if (fate === 2) run.cancel();
      else await run.text();
    } catch (error) {
      assert.match(String(error), /interrupted/, `${what}: ${error}`);
      counts[fate === 9 ? 'failed' : 'aborted'] += 1;
    }
    seen.left = Number.POSITIVE_INFINITY;
    if ((run.stats.reusedTokens ?? 0) > 0) counts.reused += 1;
    past = [...prompt, ...run.tokens].slice(0, CONTEXT - 14);
    const nSeen = Math.max(seen.chosen.length, run.tokens.length);
    if (nSeen === 0) continue;
    const text = [...prompt, ...run.tokens].slice(0, prompt.length + nSeen - 1);
    const all = await fresh.logits(text);
    for (const [i, token] of run.tokens.entries()) {
      const row = all.subarray((prompt.length - 1 + i) * nVocab, (prompt.length + i) * nVocab);
      const most = Math.max(...row);
      assert.ok(row[token] >= most - limit, `${what}: token ${i} is ${token}, ${row[token]} of ${most}`);
    }
    if (seen.chosen.length === 0) counts.checked += 1;
    for (const [i, got] of seen.chosen.entries()) {
      const row = prompt.length - 1 + i;
      if (row >= text.length) break;
      const expected = all.subarray(row * nVocab, (row + 1) * nVocab);
      const far = got.findIndex((value, at) => !(Math.abs(value - expected[at]) <= limit));
      assert.equal(far, -1, `${what}: token ${i}, logit ${far} is ${got[far]}, not ${expected[far]}`);
      counts.checked += 1;
    }
  }
  return counts;
}
