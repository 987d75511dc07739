/**
 * `npm run bench -- --gpu --peers`: the same synthetic GGUF file on the same GPU in wllama and in
 * fused-matmul/llama, in turns in one page of Chromium. With --software the adapter is Mesa's
 * lavapipe, which computes on the processor: such a race compares dispatches, calls and
 * instructions, not use of memory.
 */
import { chromium } from 'playwright-core';
import { findChromium } from '../../scripts/setup/engines.js';
import { median } from './lab.js';
import { largeLlama, SMALL } from './large-llama.js';
import { launchLavapipeChromium } from './lavapipe-chromium.js';
import { ENGINE_NAMES, ENGINES, race } from './llama.js';
import { table } from './report.js';

/** @import { EngineName } from './llama.js' */
/** @import { Run } from './page/engine.js' */

/** Chromium asks for these on Linux; elsewhere they change nothing. */
const GPU_FLAGS = ['--enable-unsafe-webgpu', '--enable-features=Vulkan'];
const launchWithGpu = () =>
  chromium.launch({
    executablePath: findChromium(),
    headless: true,
    args: process.getuid?.() === 0 ? ['--no-sandbox', ...GPU_FLAGS] : GPU_FLAGS,
    ignoreDefaultArgs: ['--disable-gpu'],
  });

/**
 * @param {{ software: boolean, quick: boolean, setting: import('./records.js').Setting }} options
 * @returns {Promise<string>}  Markdown
 */
export async function gpuPeersReport({ software, quick, setting }) {
  const isSmall = software || quick;
  const file = isSmall ? largeLlama('Q4_K_M', SMALL) : largeLlama('Q4_K_M');
  const sizes = isSmall ? { prompt: 64, decoded: 16 } : { prompt: 128, decoded: 64 };
  const launch = software ? launchLavapipeChromium : launchWithGpu;
  const { runs, facts, version, calls } = await race({
    ...{ file, threads: 1, gpu: true, launch, turns: 1 },
    ...sizes,
  });
  const speed = (/** @type {EngineName} */ engine, /** @type {(run: Run) => number} */ of) =>
    median(runs[engine].map(of));
  const promptOf = (/** @type {Run} */ run) => (1000 * run.promptTokens) / run.promptMs;
  const decodeOf = (/** @type {Run} */ run) => (1000 * (run.decodedTokens - 1)) / run.decodeMs;
  const rows = ENGINE_NAMES.map((engine) => {
    const [prompt, decode] = [speed(engine, promptOf), speed(engine, decodeOf)];
    const { loadMs, megabytes } = facts[engine];
    return [
      ENGINES[engine],
      prompt.toFixed(1),
      decode.toFixed(2),
      `${(prompt / speed('wllama', promptOf)).toFixed(2)}x`,
      `${(decode / speed('wllama', decodeOf)).toFixed(2)}x`,
      loadMs.toFixed(0),
      megabytes.toFixed(0),
      String(runs[engine].length),
    ];
  });
  const head = ['', 'prompt tokens/s', 'decode tokens/s', 'prompt, to wllama', 'decode, to wllama'];
  const names = [...new Set(ENGINE_NAMES.flatMap((engine) => Object.keys(calls[engine])))];
  const counts = names.map((name) => [
    name,
    ...ENGINE_NAMES.map((engine) => (calls[engine][name] ?? 0).toFixed(1)),
  ]);
  return [
    `Chromium ${version} on ${facts.ours.note}; ${setting.machine}; ${setting.date}; \`${setting.command}\``,
    table([...head, 'load ms', 'page MB', 'runs'], rows),
    'Calls of WebGPU for a decoded token:',
    table(['', ...ENGINE_NAMES.map((engine) => ENGINES[engine])], counts),
    'Before the race, the most likely next tokens of both engines agreed.',
  ].join('\n\n');
}
