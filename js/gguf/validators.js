/* Tells a file from a later one at the same address, by ETag and Last-Modified (RFC 9110, section 8.8). */

/**
 * @typedef {object} Validators
 * @property {string | null} etag
 * @property {string | null} modified  Last-Modified
 * @property {string} [host]  that answered, behind all redirects; absent where it is unknown
 */

/**
 * @param {Response} response
 * @returns {Validators}
 */
export function validators({ headers, url }) {
  const host = url && URL.canParse?.(url) ? new URL(url).host : '';
  return { etag: headers.get('etag'), modified: headers.get('last-modified'), ...(host && { host }) };
}

/**
 * Whether the second answer is about another file than the first. Tags are compared weakly, since compression and proxies turn
 * "x" into W/"x" and back. Equal tags decide against another Last-Modified: the servers of a farm have the same file from different
 * times. Different tags of different hosts say nothing, since each host makes its own; then Last-Modified decides.
 * @param {Validators} known
 * @param {Validators} now
 */
export function isOtherFile(known, now) {
  const bothModified = Boolean(known.modified && now.modified);
  if (known.etag && now.etag) {
    if (opaqueTag(known.etag) === opaqueTag(now.etag)) return false;
    const otherHost = known.host !== undefined && now.host !== undefined && known.host !== now.host;
    return !(otherHost && bothModified && known.modified === now.modified);
  }
  return bothModified && known.modified !== now.modified;
}

/**
 * What If-Range may ask for: it takes strong tags only, and a date only of a file without a tag.
 * @param {Validators} known
 */
export function ifRangeOf({ etag, modified }) {
  if (!etag) return modified ?? undefined;
  return etag.startsWith('"') ? etag : undefined;
}

/**
 * A tag without its strength, its quotes, and what servers append where they compress: "x-gzip", "x--gzip", "x;br".
 * @param {string} etag
 */
function opaqueTag(etag) {
  const tag = etag
    .trim()
    .replace(/^W\//i, '')
    .replace(/^"(.*)"$/, '$1');
  return tag.replace(/(?<=.)(?:--?|;|:)(?:gzip|br|zstd|deflate)$/i, '');
}
