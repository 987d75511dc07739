/* Architectures that the runner supports, by general.architecture. */

import { llama } from './llama.js';
import { qwen2 } from './qwen2.js';
import { qwen3 } from './qwen3.js';

/** @type {Readonly<Record<string, import('../plan.js').ArchitectureFile>>} */
export const ARCHITECTURES = Object.freeze({ llama, qwen2, qwen3 });
