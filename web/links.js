/** Links to models as people have them: the page of a file on Hugging Face becomes the file's own address. */

import { resolveLink } from '../js/gguf/links.js';

/**
 * Small chat models, by size. The sizes, in bytes, and the licences are what the pages of the files
 * said; sizes are rounded to a megabyte.
 * @typedef {{ name: string, type: string, bytes: number, licence: string, link: string }} Suggestion
 */

/** @type {Suggestion[]} */
export const suggestions = [
  {
    name: 'SmolLM2 135M',
    type: 'Q4_K_M',
    bytes: 105e6,
    licence: 'Apache 2.0',
    link: 'https://huggingface.co/bartowski/SmolLM2-135M-Instruct-GGUF/blob/main/SmolLM2-135M-Instruct-Q4_K_M.gguf',
  },
  {
    name: 'LFM2 350M',
    type: 'Q4_K_M',
    bytes: 229e6,
    licence: 'LFM Open License 1.0',
    link: 'https://huggingface.co/LiquidAI/LFM2-350M-GGUF/blob/main/LFM2-350M-Q4_K_M.gguf',
  },
  {
    name: 'Gemma 3 270M',
    type: 'Q4_K_M',
    bytes: 253e6,
    licence: 'Gemma Terms of Use',
    link: 'https://huggingface.co/unsloth/gemma-3-270m-it-GGUF/blob/main/gemma-3-270m-it-Q4_K_M.gguf',
  },
  {
    name: 'SmolLM2 360M',
    type: 'Q8_0',
    bytes: 386e6,
    licence: 'Apache 2.0',
    link: 'https://huggingface.co/HuggingFaceTB/SmolLM2-360M-Instruct-GGUF/blob/main/smollm2-360m-instruct-q8_0.gguf',
  },
  {
    name: 'Qwen2.5 0.5B',
    type: 'Q4_K_M',
    bytes: 491e6,
    licence: 'Apache 2.0',
    link: 'https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF/blob/main/qwen2.5-0.5b-instruct-q4_k_m.gguf',
  },
  {
    name: 'Qwen3 0.6B',
    type: 'Q8_0',
    bytes: 639e6,
    licence: 'Apache 2.0',
    link: 'https://huggingface.co/Qwen/Qwen3-0.6B-GGUF/blob/main/Qwen3-0.6B-Q8_0.gguf',
  },
  {
    name: 'Gemma 3 1B',
    type: 'Q4_K_M',
    bytes: 806e6,
    licence: 'Gemma Terms of Use',
    link: 'https://huggingface.co/lmstudio-community/gemma-3-1b-it-GGUF/blob/main/gemma-3-1b-it-Q4_K_M.gguf',
  },
  {
    name: 'Llama 3.2 1B',
    type: 'Q4_K_M',
    bytes: 808e6,
    licence: 'Llama 3.2 Community License',
    link: 'https://huggingface.co/bartowski/Llama-3.2-1B-Instruct-GGUF/blob/main/Llama-3.2-1B-Instruct-Q4_K_M.gguf',
  },
];

/** What is wrong with a link, in words for its field. */
export class LinkError extends Error {
  name = 'LinkError';
}

/**
 * @param {string} text  as typed or pasted
 * @param {string} page  this page's address: its own origin is allowed without https
 * @returns {{ url: string, file: string }} where to fetch from, and the name to show
 * @throws {LinkError}
 */
export function parseLink(text, page) {
  const trimmed = text.trim();
  if (!trimmed) throw new LinkError('Enter the address of a GGUF file.');
  let url;
  const link = fileBehind(trimmed);
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:/i.test(link) ? link : `https://${link}`);
  } catch {
    throw new LinkError(`“${trimmed}” is no address.`);
  }
  if (url.protocol !== 'https:' && url.origin !== new URL(page).origin) {
    const scheme = url.protocol.slice(0, -1);
    throw new LinkError(
      `The address must begin with https://, not ${scheme}: this page may fetch nothing else.`,
    );
  }
  return { url: url.href, file: fileName(url) };
}

/** The file that a link to Hugging Face leads to; other links as they are. @param {string} link */
function fileBehind(link) {
  try {
    return resolveLink(link);
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    throw new LinkError(message.replace(/"([^"]*)"/g, '“$1”'));
  }
}

/** @param {URL} url */
function fileName({ pathname, hostname }) {
  const last = pathname.split('/').filter(Boolean).at(-1);
  if (!last) return hostname;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}
