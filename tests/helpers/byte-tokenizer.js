/** A tokenizer whose tokens are bytes, with a few control and user-defined tokens. */
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';

export const CONTROL = 3;
export const USER_DEFINED = 4;
const FIRST_BYTE = 3;
export const FIRST_SPECIAL = FIRST_BYTE + 256;

/**
 * @param {[text: string, type: number][]} special  they get the ids from FIRST_SPECIAL on
 * @param {Record<string, unknown>} [more]  metadata
 */
export function byteTokenizer(special, more = {}) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...special.map(([text]) => text)];
  const types = [2, CONTROL, CONTROL, ...bytes.map(() => 6), ...special.map(([, type]) => type)];
  const metadata = /** @type {Record<string, any>} */ ({
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': types,
    'tokenizer.ggml.scores': tokens.map(() => 0),
    'tokenizer.ggml.add_bos_token': false,
    'tokenizer.ggml.add_space_prefix': false,
    ...more,
  });
  return { metadata, tokenizer: new Tokenizer(metadata) };
}
