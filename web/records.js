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

async function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
  const database = await answerOf(request);
  // Another tab may have a later version of the page, which changes the database.
  database.onversionchange = () => database.close();
  return database;
}

/** @template {{ id: string }} T */
export class Records {
  /** @type {Promise<IDBDatabase> | undefined} */
  #database;

  /**
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest} action
   * @returns {Promise<any>} its result, when what was written is in the database
   */
  async #run(mode, action) {
    this.#database ??= open();
    const transaction = (await this.#database).transaction(STORE, mode);
    const written = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const [result] = await Promise.all([answerOf(action(transaction.objectStore(STORE))), written]);
    return result;
  }

  /** All records, read in parts, as the page's thread decodes them. @returns {Promise<T[]>} */
  async all() {
    /** @type {T[]} */
    const found = [];
    for (;;) {
      const last = found.at(-1);
      const rest = last && IDBKeyRange.lowerBound(last.id, true);
      const part = await this.#run('readonly', (store) => store.getAll(rest, partLength));
      found.push(...part);
      if (part.length < partLength) return found;
    }
  }

  /** @param {T} record */
  put(record) {
    return this.#run('readwrite', (store) => store.put(record));
  }

  /** @param {string} id */
  delete(id) {
    return this.#run('readwrite', (store) => store.delete(id));
  }
}
