/* Sources that only this thread can read: bytes in memory, or a custom fetch. They are read here,
 * and each chunk is sent when the worker asks for it. */

import { packError } from './errors.js';

/** @typedef {import('../gguf/bytes.js').ByteSource} ByteSource */
/** @typedef {(message: object, transfer: ArrayBuffer[]) => void} Post */

export class Relay {
  #post;
  /** @type {Map<number, ByteSource>} */
  #sources = new Map();
  /**
   * @type {Map<number, { relay: number, chunks: AsyncIterator<Uint8Array>,
   *   abort: AbortController }>}
   */
  #streams = new Map();
  #lastId = 0;

  /** @param {Post} post */
  constructor(post) {
    this.#post = post;
  }

  /** @param {ByteSource} source @returns {number} the number by which the worker asks for it */
  offer(source) {
    this.#sources.set(++this.#lastId, source);
    return this.#lastId;
  }

  /** @param {number} relay */
  withdraw(relay) {
    this.#sources.delete(relay);
    for (const [stream, { relay: of }] of this.#streams) if (of === relay) this.#leave(stream);
  }

  end() {
    for (const relay of this.#sources.keys()) this.withdraw(relay);
  }

  /**
   * @param {{ kind: 'read' | 'leave', stream: number, relay: number, offset: number,
   *   length: number }} message
   */
  receive({ kind, stream, relay, offset, length }) {
    if (kind === 'leave') this.#leave(stream);
    else this.#read(stream, relay, offset, length);
  }

  /** @param {number} stream */
  #leave(stream) {
    const reading = this.#streams.get(stream);
    if (!reading) return;
    this.#streams.delete(stream);
    reading.abort.abort();
    reading.chunks.return?.()?.catch(() => {});
  }

  /**
   * @param {number} stream
   * @param {number} relay
   * @param {number} offset
   * @param {number} length
   */
  async #read(stream, relay, offset, length) {
    let reading = this.#streams.get(stream);
    if (!reading) {
      const source = this.#sources.get(relay);
      if (!source) return;
      const abort = new AbortController();
      const chunks = source.stream(offset, length, abort.signal)[Symbol.asyncIterator]();
      reading = { relay, chunks, abort };
      this.#streams.set(stream, reading);
    }
    try {
      const { value, done } = await reading.chunks.next();
      if (done) this.#streams.delete(stream);
      const chunk = done ? undefined : new Uint8Array(value);
      this.#post({ kind: 'chunk', stream, chunk }, chunk ? [chunk.buffer] : []);
    } catch (error) {
      this.#streams.delete(stream);
      this.#post({ kind: 'chunk', stream, error: packError(error) }, []);
    }
  }
}

/** The worker's side: sources that ask the other thread for each chunk. */
export class RelayReader {
  #post;
  /** @type {Map<number, (message: any) => void>} */
  #waiting = new Map();
  #lastId = 0;

  /** @param {Post} post */
  constructor(post) {
    this.#post = post;
  }

  /**
   * @param {{ stream: number, chunk?: Uint8Array, error?: import('./errors.js').SentError }}
   *   message
   */
  receive(message) {
    this.#waiting.get(message.stream)?.(message);
    this.#waiting.delete(message.stream);
  }

  /**
   * @param {number} relay
   * @param {{ name: string, size: number }} facts
   * @param {(error: import('./errors.js').SentError) => Error} unpack
   * @returns {ByteSource}
   */
  source(relay, { name, size }, unpack) {
    const ask = async (
      /** @type {object} */ message,
      /** @type {number} */ stream,
      /** @type {AbortSignal | undefined} */ signal,
    ) => {
      /** @type {(() => void) | undefined} */
      let stop;
      try {
        return await new Promise((resolve, reject) => {
          stop = () => reject(signal?.reason);
          signal?.throwIfAborted();
          signal?.addEventListener('abort', stop);
          this.#waiting.set(stream, resolve);
          this.#post(message, []);
        });
      } finally {
        if (stop) signal?.removeEventListener('abort', stop);
        this.#waiting.delete(stream);
      }
    };
    const self = this;
    return {
      name,
      size,
      async *stream(offset, length, signal) {
        const stream = ++self.#lastId;
        try {
          for (;;) {
            const { chunk, error } = await ask(
              { kind: 'read', relay, stream, offset, length },
              stream,
              signal,
            );
            if (error) throw unpack(error);
            if (!chunk) return;
            yield chunk;
          }
        } finally {
          self.#post({ kind: 'leave', stream }, []);
        }
      },
    };
  }
}
