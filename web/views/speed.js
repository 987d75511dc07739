/** How fast the model is: a number, its course, and the rest in a list. */
import { byId } from '../dom.js';
import { bytes, count, digits, duration } from '../format.js';

/** @typedef {import('../../js/llama/generation.js').GenerationStats} Stats */

const width = 240;
const height = 44;
const points = 60;

const devices = { cpu: 'on the CPU', gpu: 'on the GPU', mixed: 'on GPU and CPU' };

const tokensOf = (/** @type {number} */ n) => `${count(n)}\u00a0${n === 1 ? 'token' : 'tokens'}`;

export class SpeedView {
  #stats = byId('stats');
  /** Tokens and milliseconds of decoding at each update. @type {[number, number][]} */
  #course = [];

  reset() {
    this.#course = [];
    this.#stats.dataset.state = 'writing';
    for (const id of ['tps', 'stat-first', 'stat-prompt', 'stat-written']) byId(id).textContent = '–';
    this.#draw();
  }

  /** @param {Stats} stats */
  update(stats) {
    const { tokens, decodeMs, decodeTokensPerSecond, timeToFirstToken, promptTokens, reusedTokens } = stats;
    if (tokens > 1) byId('tps').textContent = digits(decodeTokensPerSecond);
    byId('stat-first').textContent = duration(timeToFirstToken);
    // What the context still had of the prompt was not read again.
    const read = reusedTokens ? `${count(promptTokens - reusedTokens)} of ` : '';
    byId('stat-prompt').textContent =
      `${read}${tokensOf(promptTokens)}, ${digits(stats.promptTokensPerSecond)}/s`;
    byId('stat-written').textContent = tokensOf(tokens);
    this.#course.push([tokens, decodeMs]);
    this.#draw();
  }

  /** @param {Stats} stats @param {boolean} stopped */
  finish(stats, stopped) {
    this.update(stats);
    Object.assign(this.#stats.dataset, {
      state: stopped ? 'stopped' : 'done',
      tokens: String(stats.tokens),
      tps: String(stats.decodeTokensPerSecond),
      promptTps: String(stats.promptTokensPerSecond),
      first: String(stats.timeToFirstToken),
      seed: String(stats.seed),
      reason: stats.finishReason ?? '',
    });
  }

  failed() {
    this.#stats.dataset.state = 'failed';
  }

  /** Where the model computes, and how much memory it holds there. @param {import('../../js/llama/info.js').ModelInfo} info */
  runsOn({ backend, memory }) {
    byId('speed-device').textContent = devices[backend.name];
    byId('stat-memory').textContent = bytes(memory.linear);
  }

  /** The speed over time, as means of equal stretches of what was written. */
  #draw() {
    const [area, line] = byId('spark').children;
    const speeds = stretches(this.#course, points);
    const most = Math.max(...speeds) * 1.15;
    if (speeds.length < 2 || !(most > 0)) {
      for (const path of [area, line]) path.setAttribute('d', '');
      return;
    }
    const at = speeds.map((speed, i) => {
      const x = (i / (speeds.length - 1)) * width;
      return `${x.toFixed(1)},${(height - (speed / most) * height).toFixed(1)}`;
    });
    line.setAttribute('d', `M${at.join('L')}`);
    area.setAttribute('d', `M0,${height}L${at.join('L')}L${width},${height}Z`);
  }
}

/**
 * @param {[tokens: number, ms: number][]} course
 * @param {number} most  stretches
 * @returns {number[]} tokens per second of each
 */
export function stretches(course, most) {
  const step = Math.max(1, Math.ceil(course.length / most));
  const speeds = [];
  for (let i = step; i < course.length; i += step) {
    const [tokens, ms] = course[i];
    const [tokensBefore, msBefore] = course[i - step];
    if (ms > msBefore) speeds.push((1000 * (tokens - tokensBefore)) / (ms - msBefore));
  }
  return speeds;
}
