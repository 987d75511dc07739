/* Turns the bytes of tokens into pieces of text. A piece never contains half a character, nor any
 * part of a stop string, nor text that may become one.
 *
 * Control tokens are not shown, but stop strings match their spelling too, alone and together with
 * the text around them. So the stream looks for stop strings twice: in the text as shown, and in
 * the text with control tokens spelled out. */

export class TextStream {
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  #stops;
  /** The end of the text, control tokens included, that is held back. */
  #held = '';
  /** Indices of its UTF-16 units that are shown, ascending. @type {number[]} */
  #shown = [];
  #trimSpace;
  /** True once a stop string was found: no more text follows. */
  stopped = false;

  /**
   * @param {readonly string[]} stops
   * @param {boolean} [trimSpace]  drop a space at the start of the text
   */
  constructor(stops, trimSpace = false) {
    this.#stops = stops;
    this.#trimSpace = trimSpace;
  }

  /**
   * @param {Uint8Array} bytes
   * @param {boolean} [hidden]  the bytes spell a control token, which only stop strings match
   * @returns {string} the text that can be released now; may be empty
   */
  push(bytes, hidden = false) {
    return this.#take(
      (hidden ? new TextDecoder() : this.#decoder).decode(bytes, { stream: !hidden }),
      hidden,
    );
  }

  /** Releases the rest when no more bytes follow; half a character becomes U+FFFD. */
  end() {
    if (this.stopped) return '';
    const text = this.#take(this.#decoder.decode(), false);
    const rest = this.stopped ? '' : this.#text();
    this.#held = '';
    this.#shown = [];
    return text + rest;
  }

  /** The shown part of the text held back. */
  #text() {
    return this.#shown.map((at) => this.#held[at]).join('');
  }

  /** @param {string} text @param {boolean} hidden */
  #take(text, hidden) {
    if (this.stopped || text === '') return '';
    const more = this.#trimSpace && !hidden && text.startsWith(' ') ? text.slice(1) : text;
    this.#trimSpace &&= hidden;
    if (this.#stops.length === 0) return hidden ? '' : more;
    for (let i = 0; !hidden && i < more.length; i++) this.#shown.push(this.#held.length + i);
    this.#held += more;
    return this.#release();
  }

  /** Releases the text that cannot be the start of a stop string. */
  #release() {
    const [all, shown, text] = [this.#held, this.#shown, this.#text()];
    /** Number of shown units before a place in `all`. @param {number} place */
    const before = (place) => shown.filter((at) => at < place).length;

    const found = this.#stops.flatMap((stop) => {
      const place = all.indexOf(stop);
      return [text.indexOf(stop), place < 0 ? -1 : before(place)].filter((at) => at >= 0);
    });
    if (found.length > 0) {
      this.stopped = true;
      return text.slice(0, Math.min(...found));
    }
    const keep = (/** @type {string} */ end) => Math.max(...this.#stops.map((stop) => overlap(end, stop)));
    const cut = Math.min(all.length - keep(all), shown[text.length - keep(text)] ?? all.length);
    const nShown = before(cut);
    this.#held = all.slice(cut);
    this.#shown = shown.slice(nShown).map((at) => at - cut);
    return text.slice(0, nShown);
  }
}

/**
 * Length of the longest end of text that stop begins with.
 * @param {string} text
 * @param {string} stop
 */
export function overlap(text, stop) {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--)
    if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}
