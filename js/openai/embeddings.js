/* Answers requests for embeddings. */

import { checkNames, oneOf } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { withoutNulls } from './request.js';

const FIELDS = Object.freeze(['input', 'model', 'encoding_format', 'dimensions', 'user']);

/**
 * @param {{ model: import('../llama/model.js').Llama | import('../worker/llama-client.js').WorkerLlama,
 *   name: string }} parts
 * @param {import('./types.js').EmbeddingRequest} request
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<import('./types.js').EmbeddingResponse>}
 */
export async function embeddings({ model, name }, request, signal) {
  checkNames(request, FIELDS, 'field');
  const { input, encoding_format = 'float', dimensions } = withoutNulls(request);
  oneOf(['float', 'base64'], encoding_format, 'encoding_format');
  const texts = typeof input === 'string' ? [input] : input;
  if (!Array.isArray(texts) || texts.length === 0 || texts.some((text) => typeof text !== 'string'))
    throw new ArgumentError(`input must be a text or a list of texts, got ${show(input)}`);
  const vectors = await model.embed(/** @type {string[]} */ (texts), {
    queue: true,
    ...(dimensions !== undefined && { dimensions }),
    ...(signal && { signal }),
  });
  let nTokens = 0;
  for (const text of texts) nTokens += (await model.tokenize(text)).length;
  const encode = encoding_format === 'base64' ? base64 : Array.from;
  return {
    object: 'list',
    model: name,
    data: vectors.map((vector, index) => ({
      object: 'embedding',
      index,
      embedding: /** @type {number[]} */ (encode(vector)),
    })),
    usage: { prompt_tokens: nTokens, total_tokens: nTokens },
  };
}

/** Bytes of little-endian floats as base64. @param {Float32Array} vector */
function base64(vector) {
  const bytes = new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
