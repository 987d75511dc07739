/** Records in the browser's IndexedDB, each under its `id`. */

const DATABASE = 'fused-matmul-page';
const STORE = 'conversations';
/** Records that are read at once. */
const partLength = 10;

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const answerOf = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** @param {() => void} onClose  the database must be opened again */
async function open(onClose) {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
  const database = await answerOf(request);
  // Another tab may have a later version of the page, which changes the database.
  database.onversionchange = () => {
    database.close();
    onClose();
  };
  // The browser closes it when the data of the site is cleared.
  database.onclose = onClose;
  return database;
}

/** @template {{ id: string, used: number }} T */
export class Records {
  /** @type {Promise<IDBDatabase> | undefined} */
  #database;

  /** A database that cannot be used is opened again for the next action. */
  #open() {
    if (!this.#database) {
      const forget = () => {
        this.#database = undefined;
      };
      this.#database = open(forget);
      this.#database.catch(forget);
    }
    return this.#database;
  }

  /**
   * @template R
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => Promise<R>} action
   * @returns {Promise<R>} its result, when what was written is in the database
   */
  async #run(mode, action) {
    const transaction = (await this.#open()).transaction(STORE, mode);
    const written = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const [result] = await Promise.all([action(transaction.objectStore(STORE)), written]);
    return result;
  }

  /** All records, read in parts, as the page's thread decodes them. @returns {Promise<T[]>} */
  async all() {
    /** @type {T[]} */
    const found = [];
    for (;;) {
      const last = found.at(-1);
      const rest = last && IDBKeyRange.lowerBound(last.id, true);
      const part = await this.#run('readonly', (store) => answerOf(store.getAll(rest, partLength)));
      found.push(...part);
      if (part.length < partLength) return found;
    }
  }

  /**
   * Writes a record, unless another tab has changed it.
   * @param {T} record
   * @param {number} [used]  of the record that it replaces
   * @returns {Promise<T | undefined>} the record of another tab, which stays
   */
  put(record, used) {
    return this.#run('readwrite', async (store) => {
      /** @type {T | undefined} */
      const found = await answerOf(store.get(record.id));
      if (found && found.used !== used) return found;
      await answerOf(store.put(record));
      return undefined;
    });
  }

  /** @param {string} id */
  delete(id) {
    return this.#run('readwrite', (store) => answerOf(store.delete(id)));
  }
}
