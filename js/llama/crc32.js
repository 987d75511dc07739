/* CRC-32, as zlib and PNG have it. It needs no secure context, as WebCrypto does. */

/** CRC-32 of each byte. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** @param {Uint8Array} bytes @param {number} [before]  of the bytes before these */
export function crc32(bytes, before = 0) {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/**
 * A checksum of a value of the metadata.
 * @param {unknown} value
 */
export const crcOf = (value) =>
  crc32(
    new TextEncoder().encode(
      JSON.stringify(value, (_, one) => {
        if (typeof one === 'bigint') return String(one);
        return ArrayBuffer.isView(one) ? Array.from(/** @type {any} */ (one)) : one;
      }),
    ),
  );
