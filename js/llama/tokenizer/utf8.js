/* Texts as bytes, and tokens that stand for single bytes, such as <0x0A>. */

/** Undefined in a bare context of Node's vm, where importing must not throw. */
export const encoder = globalThis.TextEncoder && new TextEncoder();

/**
 * The text of the token for a byte.
 * @param {number} byte
 */
export const byteToken = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;

/**
 * The byte that a token stands for.
 * @param {string} text
 */
export const byteOf = (text) => Uint8Array.of(Number.parseInt(text.slice(3, 5), 16));
