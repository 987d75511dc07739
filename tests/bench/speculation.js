/**
 * `npm run bench -- --speculate`: tokens a second with drafts and without, on texts that repeat their
 * prompt and on one that does not (texts.js), with a llama of random weights, larger than most caches. A
 * hook makes it write the answers, so that the steps are those of a model that would. Both ways take turns.
 */
import { Llama } from '../../js/llama/index.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { median } from './lab.js';
import { largeLlama } from './large-llama.js';
import { table } from './report.js';
import { TEXTS } from './texts.js';

const CONTEXT = 1536;

/**
 * Writes an answer, and counts passes over the weights.
 * @param {Llama} model
 * @param {readonly number[]} prompt
 * @param {readonly number[]} answer
 * @param {'lookup' | undefined} speculate
 */
async function write(model, prompt, answer, speculate) {
  let passes = 0;
  const { feed } = WasmBackend.prototype;
  WasmBackend.prototype.feed = function (x, block, at) {
    if (block.layer === 0) passes += 1;
    return feed.call(this, x, block, at);
  };
  const logits = (/** @type {Float32Array} */ row, /** @type {readonly number[]} */ tokens) => {
    row[answer[tokens.length - prompt.length]] = 1e6;
  };
  const options = { temperature: 0, maxTokens: answer.length, ignoreEnd: true, logits };
  try {
    const run = model.generate(prompt, { ...options, ...(speculate && { speculate }) });
    await run.next();
    passes = 0;
    const { user } = process.cpuUsage();
    await run.text();
    return { stats: run.stats, passes, cpu: process.cpuUsage().user - user };
  } finally {
    WasmBackend.prototype.feed = feed;
  }
}

/**
 * A table of all texts. Time of the processor, beside that of the clock, hardly depends on other programs.
 * @param {number} rounds
 * @param {boolean} quick  only the beginnings of the answers
 */
export async function speculationReport(rounds, quick) {
  const model = await Llama.load(largeLlama('Q4_K_M'), { threads: 1, contextLength: CONTEXT });
  const rows = [];
  for (const { name, repeats, prompt, answer } of TEXTS) {
    const from = model.tokenize(prompt);
    const whole = model.tokenize(answer, { bos: false });
    const to = quick ? whole.slice(0, 60) : whole;
    /** @type {Awaited<ReturnType<typeof write>>[]} */
    const plain = [];
    /** @type {Awaited<ReturnType<typeof write>>[]} */
    const drafted = [];
    for (let round = 0; round < rounds; round++) {
      plain.push(await write(model, from, to, undefined));
      drafted.push(await write(model, from, to, 'lookup'));
    }
    const rate = (/** @type {typeof plain} */ some) =>
      median(some.map(({ stats }) => stats.decodeTokensPerSecond));
    const ratios = plain.map(({ cpu }, i) => cpu / drafted[i].cpu);
    const last = drafted[rounds - 1];
    const { draftedTokens, acceptedTokens, tokens } = last.stats;
    rows.push([
      name,
      repeats ? 'yes' : 'no',
      String(tokens),
      rate(plain).toFixed(1),
      rate(drafted).toFixed(1),
      `${(rate(drafted) / rate(plain)).toFixed(2)}x`,
      `${median(ratios).toFixed(2)}x`,
      `${acceptedTokens} of ${draftedTokens}`,
      ((tokens - 1) / last.passes).toFixed(2),
    ]);
  }
  const { kernels, activation } = model.info;
  model.dispose();
  const head = [
    'text',
    'repeats',
    'tokens',
    'tokens/s',
    'with drafts',
    'ratio',
    'by CPU time',
    'right drafts',
    'tokens a pass',
  ];
  return `${table(head, rows)}\n\nQ4_K_M, ${activation} on ${kernels.isa}, 1 thread, ${rounds} rounds in turns`;
}
