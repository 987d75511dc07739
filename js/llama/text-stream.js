/* Turns tokens' bytes into pieces of text: never half a character, and nothing of a stop string or what may become one.
 *
 * Control tokens are not shown, but stop strings match their spelling too, alone and together with text around them. So the
 * stream looks for stop strings twice: in the text as it is shown, and in the text with the control tokens spelt out. */

export class TextStream {
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  #stops;
  /** The end of the text, control tokens included, that is held back. */
  #held = '';
  /** Which units of it are shown, rising. @type {number[]} */
  #shown = [];
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
   * @param {boolean} [hidden]  the spelling of a control token, which only counts for stop strings
   * @returns {string}  what can be given out now, perhaps nothing
   */
  push(bytes, hidden = false) {
    return this.#take(
      (hidden ? new TextDecoder() : this.#decoder).decode(bytes, { stream: !hidden }),
      hidden,
    );
  }

  /** What is left when no more bytes come; half a character becomes U+FFFD. */
  end() {
    if (this.stopped) return '';
    const text = this.#take(this.#decoder.decode(), false);
    const rest = this.stopped ? '' : this.#text();
    this.#held = '';
    this.#shown = [];
    return text + rest;
  }

  /** The shown part of what is held. */
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

  /** Gives out what no stop string can begin in. */
  #release() {
    const [all, shown, text] = [this.#held, this.#shown, this.#text()];
    /** Shown units before a place in `all`. @param {number} place */
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
 * How long an end of text is that stop begins with.
 * @param {string} text
 * @param {string} stop
 */
function overlap(text, stop) {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--)
    if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}
