/* Tells a file from a later one at the same URL, by ETag and Last-Modified (RFC 9110, section
 * 8.8). */

/**
 * @typedef {object} Validators
 * @property {string | null} etag
 * @property {string | null} modified  Last-Modified.
 * @property {string} [host]  Host that answered, after all redirects; absent if unknown.
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
 * Tells whether the second answer belongs to another file than the first.
 * - Tags are compared weakly: compression and proxies turn "x" into W/"x" and back.
 * - Equal tags mean the same file, even if Last-Modified differs: servers of a farm may have the
 *   same file with different times.
 * - Different tags from different hosts mean nothing, as each host makes its own; Last-Modified
 *   decides.
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
 * The value of If-Range: a strong tag, or the date of a file without a tag.
 * @param {Validators} known
 */
export function ifRangeOf({ etag, modified }) {
  if (!etag) return modified ?? undefined;
  return etag.startsWith('"') ? etag : undefined;
}

/**
 * A tag without its weakness mark, its quotes, and the suffix that servers append where they
 * compress: "x-gzip", "x--gzip", "x;br".
 * @param {string} etag
 */
function opaqueTag(etag) {
  const tag = etag
    .trim()
    .replace(/^W\//i, '')
    .replace(/^"(.*)"$/, '$1');
  return tag.replace(/(?<=.)(?:--?|;|:)(?:gzip|br|zstd|deflate)$/i, '');
}
