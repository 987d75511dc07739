/** Links to models as people have them: the page of a file on Hugging Face becomes the file's own address. */

import { resolveLink } from '../js/gguf/links.js';

export const suggestions = [
  {
    label: 'SmolLM2 135M · 105 MB',
    link: 'https://huggingface.co/bartowski/SmolLM2-135M-Instruct-GGUF/blob/main/SmolLM2-135M-Instruct-Q4_K_M.gguf',
  },
  {
    label: 'Qwen2.5 0.5B · 491 MB',
    link: 'https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF/blob/main/qwen2.5-0.5b-instruct-q4_k_m.gguf',
  },
  {
    label: 'Qwen3 0.6B · 639 MB',
    link: 'https://huggingface.co/Qwen/Qwen3-0.6B-GGUF/blob/main/Qwen3-0.6B-Q8_0.gguf',
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
