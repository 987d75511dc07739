/* Tokens' bytes to pieces of text: never half a character, and nothing of a stop string or what may become one. */

export class TextStream {
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  #stops;
  #held = '';
  #trimSpace;
  /** True once a stop string came: no more text follows. */
  stopped = false;

  /**
   * @param {readonly string[]} stops
   * @param {boolean} [trimSpace]  drops a space that the text begins with
   */
  constructor(stops, trimSpace = false) {
    this.#stops = stops;
    this.#trimSpace = trimSpace;
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {string}  what can be given out now, perhaps nothing
   */
  push(bytes) {
    return this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  /** What is left when no more bytes come; half a character becomes U+FFFD. */
  end() {
    if (this.stopped) return '';
    const text = this.#take(this.#decoder.decode());
    const rest = this.#held;
    this.#held = '';
    return text + rest;
  }

  /** @param {string} more */
  #take(more) {
    if (this.stopped || more === '') return '';
    let text = this.#held + more;
    if (this.#trimSpace) {
      this.#trimSpace = false;
      if (text.startsWith(' ')) text = text.slice(1);
    }
    const found = this.#stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.stopped = true;
      this.#held = '';
      return text.slice(0, Math.min(...found));
    }
    const keep = Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - keep);
    return text.slice(0, text.length - keep);
  }
}

/**
 * How long an end of text is that stop begins with.
 * @param {string} text
 * @param {string} stop
 */
function overlap(text, stop) {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--)
    if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}
