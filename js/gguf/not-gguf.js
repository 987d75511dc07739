/* Recognises other file formats by their first bytes: pages, pointers, archives, other models. */

import { show } from '../errors.js';

/** Number of first bytes that are looked at. */
export const HEAD_BYTES = 4096;

const CONVERT = 'convert it with convert_hf_to_gguf.py of llama.cpp';
const UNPACK = 'unpack it first';

/** Formats by the bytes at the start, in hexadecimal. @type {[magic: string, what: string][]} */
const MAGICS = [
  ['504b0304', `a zip archive, as PyTorch checkpoints (.pt, .pth, .bin) are: ${UNPACK}, or ${CONVERT}`],
  ['504b0506', 'an empty zip archive'],
  ['504b0708', `a part of a zip archive: ${UNPACK}`],
  ['1f8b', `compressed by gzip: ${UNPACK}`],
  ['28b52ffd', `compressed by zstd: ${UNPACK}`],
  ['fd377a585a00', `compressed by xz: ${UNPACK}`],
  ['425a68', `compressed by bzip2: ${UNPACK}`],
  ['377abcaf271c', `a 7z archive: ${UNPACK}`],
  ['526172211a07', `a RAR archive: ${UNPACK}`],
  ['6c6d6767', oldFormat('GGML')],
  ['67676d6c', oldFormat('GGML')],
  ['666d6767', oldFormat('GGMF')],
  ['67676d66', oldFormat('GGMF')],
  ['746a6767', oldFormat('GGJT')],
  ['67676a74', oldFormat('GGJT')],
  ['616c6767', 'a GGLA file, an adapter in the format before GGUF'],
  ['46554747', 'a GGUF file for big-endian machines, which is not supported'],
  ['894844460d0a1a0a', `an HDF5 file, as Keras writes them: ${CONVERT}`],
  ['934e554d5059', 'a NumPy array'],
  ['255044462d', 'a PDF document'],
  ['7f454c46', 'a program (ELF)'],
];

/** @param {string} name */
function oldFormat(name) {
  return (
    `a file in the old ${name} format, which GGUF replaced in August 2023: ` +
    'convert it with convert_llama_ggml_to_gguf.py of llama.cpp, or take the model as GGUF'
  );
}

/**
 * Names the format of a file; undefined if it is not known.
 * @param {Uint8Array} head  first bytes of the file
 * @param {number} size  size of the whole file
 * @returns {string | undefined}
 */
export function otherFormat(head, size) {
  if (size === 0) return 'an empty file';
  const hex = Array.from(head.subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
  const magic = MAGICS.find(([start]) => hex.startsWith(start));
  if (magic) return magic[1];
  if (head.every((byte) => byte === 0))
    return 'nothing but zeros at its start, as downloads are that have not ended';
  return safetensors(head, size) ?? binary(head) ?? textual(head);
}

/**
 * A safetensors file starts with an eight-byte length and that much JSON.
 * @param {Uint8Array} head
 * @param {number} size
 */
function safetensors(head, size) {
  if (head.length < 10 || head[8] !== 0x7b) return undefined;
  const length = new DataView(head.buffer, head.byteOffset, 8).getBigUint64(0, true);
  return length >= 2n && length <= BigInt(Math.max(size, 2)) ? `a safetensors file: ${CONVERT}` : undefined;
}

/** @param {Uint8Array} head */
function binary(head) {
  const ascii = (/** @type {number} */ at, /** @type {number} */ n) =>
    String.fromCharCode(...head.subarray(at, at + n));
  if (head[0] === 0x80 && head[1] >= 2 && head[1] <= 5)
    return `a Python pickle, as old PyTorch checkpoints are: ${CONVERT}`;
  if (ascii(257, 5) === 'ustar') return `a tar archive: ${UNPACK}`;
  if (ascii(4, 4) === 'TFL3') return 'a TensorFlow Lite model';
  return undefined;
}

/** @param {Uint8Array} head */
function textual(head) {
  const isWide = (head[0] === 0xff && head[1] === 0xfe) || (head[0] === 0xfe && head[1] === 0xff);
  const encoding = isWide ? (head[0] === 0xff ? 'utf-16le' : 'utf-16be') : 'utf-8';
  // Control characters that no text contains mean binary data.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  const control = /[\0-\x08\x0e-\x1f\x7f\ufffd]/;
  // The last character may be cut.
  const text = new TextDecoder(encoding)
    .decode(head)
    .replace(/\ufffd$/, '')
    .trim();
  if (!text || control.test(text)) return undefined;
  const start = show(text.replace(/\s+/g, ' '));
  if (/^version https?:\/\/(git-lfs|hawser|git-media)/.test(text)) {
    const bytes = /^size (\d+)/m.exec(text)?.[1];
    return (
      `a Git LFS pointer in place of the file${bytes ? ` of ${bytes} bytes` : ''}: run "git lfs pull", ` +
      'or download the file itself'
    );
  }
  if (/^<\?xml/i.test(text) && !/<html/i.test(text)) return `an XML document${xmlError(text)}: ${start}`;
  if (/^(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|script|title|meta)\b/is.test(text)) {
    const title = /<title[^>]*>([^<]*)/i.exec(text)?.[1].trim();
    return (
      `an HTML page${title ? ` (${show(title.replace(/\s+/g, ' '))})` : ''}: a login or an error page, or ` +
      'the page about the file; take the address of the file itself'
    );
  }
  if (/^[{[]/.test(text)) return `JSON text: ${start}`;
  return `a text: ${start}`;
}

/** The error code in the XML answer of an object store. @param {string} text */
function xmlError(text) {
  const [, code] = /<Code>([^<]{1,100})<\/Code>/.exec(text) ?? [];
  return code ? ` with the error ${show(code)}` : '';
}
