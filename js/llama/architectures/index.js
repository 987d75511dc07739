/* How the plan of a model is made, by general.architecture. A file of its own beside names.js, since
 * it is fetched with the first model. */

import { arcee } from './arcee.js';
import { bert } from './bert.js';
import { deepseek2 } from './deepseek2.js';
import { ernie45 } from './ernie4-5.js';
import { exaone4 } from './exaone4.js';
import { falconH1 } from './falcon-h1.js';
import { gemmaEmbedding } from './gemma-embedding.js';
import { gemma2 } from './gemma2.js';
import { gemma3 } from './gemma3.js';
import { gemma4 } from './gemma4.js';
import { glm4 } from './glm4.js';
import { gptOss } from './gpt-oss.js';
import { granite } from './granite.js';
import { granitehybrid } from './granitehybrid.js';
import { granitemoe } from './granitemoe.js';
import { hunyuanDense } from './hunyuan-dense.js';
import { lfm2 } from './lfm2.js';
import { lfm2moe } from './lfm2moe.js';
import { llama } from './llama.js';
import { mistral3 } from './mistral3.js';
import { modernBert } from './modern-bert.js';
import { nomicBert } from './nomic-bert.js';
import { olmo2 } from './olmo2.js';
import { olmoe } from './olmoe.js';
import { phi3 } from './phi3.js';
import { qwen2 } from './qwen2.js';
import { qwen2moe } from './qwen2moe.js';
import { qwen3 } from './qwen3.js';
import { qwen3moe } from './qwen3moe.js';
import { qwen35 } from './qwen35.js';
import { smollm3 } from './smollm3.js';

/** @type {Readonly<Record<string, import('../plan.js').ArchitectureFile>>} */
export const PLANS = Object.freeze({
  ...{ llama, qwen2, qwen3, granite, smollm3, gemma2, gemma3, gemma4, phi3, arcee, olmo2, exaone4 },
  ...{ qwen2moe, qwen3moe, granitemoe, olmoe, deepseek2 },
  'hunyuan-dense': hunyuanDense,
  'gpt-oss': gptOss,
  ernie4_5: ernie45,
  ...{ mistral3, glm4, lfm2, lfm2moe, qwen35 },
  'falcon-h1': falconH1,
  granitehybrid,
  bert,
  'nomic-bert': nomicBert,
  'modern-bert': modernBert,
  'gemma-embedding': gemmaEmbedding,
});
