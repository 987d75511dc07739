/**
 * Mistakes of servers: some are tolerated, others refused with a description; and the first
 * request, which is retried like every other.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { afterFailure, retryAfter, transient } from '../../js/gguf/http-retry.js';
import { ifRangeOf, isOtherFile } from '../../js/gguf/validators.js';
import { ArgumentError, GgufError, openGguf } from '../../js/index.js';
import { countedBytes, sampleGguf, wideGguf } from '../helpers/gguf-bytes.js';
import { answer, replaceGlobal, serve } from '../helpers/odd-server.js';

/** @import { IncomingMessage, ServerResponse } from 'node:http' */
/** @typedef {(request: IncomingMessage, response: ServerResponse, n: number) => void} Handler */

const MB = 2 ** 20;
/** A file larger than the first request, and a smaller one. */
const large = wideGguf({ nTensors: 3, bytes: MB }).bytes;
const small = sampleGguf().bytes;
/** Waits so long that a test with them would fail. */
const noWait = { retryDelay: 600_000, retries: 3 };
const quick = { retryDelay: 1, retries: 2 };

/** @param {string} url @param {import('../../js/gguf/index.js').OpenOptions} [options] */
async function readLarge(url, options = quick) {
  const gguf = await openGguf(url, options);
  for (const i of [0, 1, 2])
    assert.ok(Buffer.from(await gguf.read(`t${i}`)).equals(countedBytes(MB, i + 1)), `t${i}`);
  return gguf;
}

/**
 * @param {Promise<unknown>} promise @param {RegExp} message @param {Partial<GgufError>} fields
 * @param {string} [what]
 */
async function refused(promise, message, fields, what = '') {
  await assert.rejects(promise, (/** @type {any} */ error) => {
    assert.ok(error instanceof GgufError, `${what}: ${error?.stack}`);
    assert.match(error.message, message, what);
    for (const [name, value] of Object.entries(fields))
      assert.equal(Reflect.get(error, name), value, `${what}: ${name} of ${error.message}`);
    return true;
  });
}

/* ---- the first request ---- */

/** @type {Record<string, Handler>} */
const failures = {
  408: (_, response) => response.writeHead(408).end(),
  '429, Retry-After: 0': (_, response) => response.writeHead(429, { 'retry-after': '0' }).end(),
  502: (_, response) => response.writeHead(502).end('a page'),
  503: (_, response) => response.writeHead(503).end(),
  524: (_, response) => response.writeHead(524).end(),
  'a reset': (request) => request.socket.destroy(),
  'no answer': () => {},
};

for (const [what, fail] of Object.entries(failures)) {
  test(`the first request meets ${what}: it is made again`, async (t) => {
    for (const nFailures of [1, 2]) {
      const { url, requests } = await serve(t, (request, response, n) =>
        n <= nFailures ? fail(request, response, n) : answer(request, response, small),
      );
      const gguf = await openGguf(url, { ...quick, timeout: 300 });
      assert.deepEqual(await gguf.read('a.weight'), countedBytes(864));
      assert.equal(requests.length, 1 + nFailures);
    }
    const { url, requests } = await serve(t, fail);
    await refused(openGguf(url, { ...quick, timeout: 100 }), /cannot fetch/, { url });
    assert.equal(requests.length, 1 + quick.retries, 'as many as are allowed');
  });
}

test('what another attempt cannot mend is told at once, with the address and the status', async (t) => {
  for (const status of [400, 401, 403, 404, 410, 451]) {
    const { url, requests } = await serve(t, (_, response) =>
      response.writeHead(status, { 'x-error-message': 'Entry not found' }).end('no'),
    );
    const message = new RegExp(`HTTP ${status} \\(Entry not found\\)`);
    await refused(openGguf(url, noWait), message, { url, status });
    assert.equal(requests.length, 1);
  }
});

test('a server that ignores Range is asked again for all of it when its answer breaks', async (t) => {
  const { url, requests } = await serve(t, (_, response, n) => {
    response.writeHead(200, { 'content-length': small.length });
    if (n > 1) return response.end(small);
    return response.write(small.subarray(0, 100), () => setTimeout(() => response.destroy(), 10));
  });
  assert.equal((await openGguf(url, quick)).byteLength, small.length);
  assert.equal(requests.length, 2);
});

test('Retry-After in seconds and as a date is waited for, also by the first request', async (t) => {
  for (const value of [() => '1', () => new Date(Date.now() + 2000).toUTCString()]) {
    const { url } = await serve(t, (request, response, n) =>
      n === 1 ? response.writeHead(429, { 'retry-after': value() }).end() : answer(request, response, small),
    );
    const started = performance.now();
    await openGguf(url, quick);
    assert.ok(performance.now() - started >= 900, `${value()}: ${performance.now() - started} ms`);
  }
});

test('Retry-After: what is no wait is none, and none is longer than half a minute', async (t) => {
  const seconds = (/** @type {string} */ text) =>
    retryAfter(new Response(null, { headers: { 'retry-after': text } }));
  for (const text of ['-5', 'soon', 'Wed, 21 Oct 2015 07:28:00 GMT', 'NaN', ' '])
    assert.equal(seconds(text), 0, text);
  assert.equal(seconds(' 7 '), 7);
  assert.equal(retryAfter(new Response(null)), 0);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let isOver = false;
  const wait = afterFailure(transient(new Error('busy'), { seconds: 86_400 }), 1, 1).then(() => {
    isOver = true;
  });
  t.mock.timers.tick(29_999);
  await Promise.resolve();
  assert.equal(isOver, false);
  t.mock.timers.tick(1);
  await wait;
  assert.equal(isOver, true);
});

test('an abort ends the wait before the second attempt', async (t) => {
  const { url, requests } = await serve(t, (_, response) =>
    response.writeHead(503, { 'retry-after': '25' }).end(),
  );
  const reason = new Error('enough');
  const abort = new AbortController();
  setTimeout(() => abort.abort(reason), 100);
  const started = performance.now();
  await assert.rejects(openGguf(url, { ...noWait, signal: abort.signal }), reason);
  assert.ok(performance.now() - started < 5000);
  assert.equal(requests.length, 1);
});

test('requests that cannot be made are not made again', async () => {
  for (const address of ['http://user:secret@127.0.0.1/x.gguf', 'http://', 'http://a b/x.gguf'])
    await refused(openGguf(address, noWait), /cannot fetch/, {}, address);
  await refused(openGguf('nonsense://x/y.gguf', { ...quick, retryDelay: 1 }), /is "nonsense:" a scheme/, {});
  const headers = /** @type {any} */ ({ 'not a name': 'x' });
  await assert.rejects(openGguf('http://127.0.0.1/x.gguf', { headers }), ArgumentError);
  let calls = 0;
  const fetch = () => {
    calls += 1;
    throw new Error('not here');
  };
  await refused(openGguf('http://x.invalid/', { fetch, ...noWait }), /not here/, {});
  assert.equal(calls, 1);
});

/* ---- ETag and Last-Modified ---- */

const [monday, tuesday] = ['Mon, 05 Jan 2026 10:00:00 GMT', 'Tue, 06 Jan 2026 10:00:00 GMT'];

test('which validators are those of another file', () => {
  /** @type {[boolean, any, any][]} */
  const table = [
    [false, { etag: '"x"' }, { etag: 'W/"x"' }],
    [false, { etag: 'W/"x"' }, { etag: '"x"' }],
    [false, { etag: 'W/"x"' }, { etag: 'w/"x"' }],
    [false, { etag: '"x"', modified: monday }, { etag: '"x"', modified: tuesday }],
    [false, { etag: 'W/"x"', modified: monday }, { etag: '"x"', modified: tuesday }],
    [false, { etag: '"x"' }, { etag: '"x-gzip"' }],
    [false, { etag: '"x--gzip"' }, { etag: 'W/"x"' }],
    [false, { etag: '"x;br"' }, { etag: '"x"' }],
    [false, { etag: 'x' }, { etag: '"x"' }],
    [false, { etag: '"x"' }, {}],
    [false, { modified: monday }, { modified: monday }],
    [false, { modified: monday }, { etag: '"x"' }],
    [true, { etag: '"x"' }, { etag: '"y"' }],
    [true, { etag: 'W/"x"' }, { etag: 'W/"y"' }],
    [true, { etag: '"x"' }, { etag: '"X"' }],
    [true, { etag: '"x-1"' }, { etag: '"x-2"' }],
    [true, { etag: '"-gzip"' }, { etag: '"-br"' }],
    [true, { etag: '"x"', modified: monday }, { etag: '"y"', modified: monday }],
    [true, { modified: monday }, { modified: tuesday }],
    [true, { etag: '"x"', modified: monday }, { modified: tuesday }],
    [true, { etag: '"x"', host: 'a' }, { etag: '"y"', host: 'b' }],
    [false, { etag: '"x"', host: 'a', modified: monday }, { etag: '"y"', host: 'b', modified: monday }],
    [true, { etag: '"x"', host: 'a', modified: monday }, { etag: '"y"', host: 'b', modified: tuesday }],
    [true, { etag: '"x"', host: 'a', modified: monday }, { etag: '"y"', host: 'a', modified: monday }],
  ];
  for (const [isOther, known, now] of table) {
    const all = { etag: null, modified: null };
    assert.equal(
      isOtherFile({ ...all, ...known }, { ...all, ...now }),
      isOther,
      `${JSON.stringify(known)} and ${JSON.stringify(now)}`,
    );
  }
  const guard = (/** @type {any} */ known) => ifRangeOf({ etag: null, modified: null, ...known });
  assert.equal(guard({ etag: '"x"', modified: monday }), '"x"');
  assert.equal(guard({ etag: 'W/"x"', modified: monday }), undefined, 'a weak tag is not for ranges');
  assert.equal(guard({ modified: monday }), monday);
  assert.equal(guard({}), undefined);
});

for (const [what, headers] of /** @type {[string, (n: number) => Record<string, string>][]} */ ([
  ['strong and weak by turns', (n) => ({ etag: n % 2 ? '"x"' : 'W/"x"' })],
  ['weak and strong by turns', (n) => ({ etag: n % 2 ? 'W/"x"' : '"x"', 'last-modified': monday })],
  ['one tag, the dates of a farm', (n) => ({ etag: '"x"', 'last-modified': n % 2 ? monday : tuesday })],
]))
  test(`a file with ${what} is the same file`, async (t) => {
    const { url } = await serve(t, (request, response, n) =>
      answer(request, response, large, { headers: headers(n) }),
    );
    await readLarge(url);
  });

/* ---- mistakes that are tolerated ---- */

/** @type {Record<string, Handler>} */
const readable = {
  'answers with 20,000 bytes at most': (request, response) =>
    answer(request, response, large, { cap: 20_000 }),
  'answers with 300,001 bytes at most, and hides the range': (request, response) =>
    answer(request, response, large, { cap: 300_001, headers: { 'content-range': undefined } }),
  'answers with less than its Content-Range says': (request, response) => {
    const [, start, last] = /(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
    answer(request, response, large, {
      cap: 500_000,
      headers: {
        'content-range': `bytes ${start}-${Math.min(Number(last), large.length - 1)}/${large.length}`,
      },
    });
  },
  'answers in chunks of unknown length, with less than asked for': (request, response) =>
    answer(request, response, large, {
      cap: 700_000,
      headers: { 'content-length': undefined, 'transfer-encoding': 'chunked' },
    }),
  'answers each range to the end of the file': (request, response) => {
    const start = Number(/=(\d+)/.exec(request.headers.range ?? '')?.[1]);
    const range = `bytes ${start}-${large.length - 1}/${large.length}`;
    response.writeHead(206, { 'content-range': range }).end(large.subarray(start));
  },
  'answers If-Range with the whole file, always': (request, response) => {
    if (request.headers['if-range']) delete request.headers.range;
    answer(request, response, large, { headers: { etag: '"x"', 'last-modified': monday } });
  },
  'answers If-Range with the whole file, without its tag': (request, response) => {
    const isGuarded = request.headers['if-range'] !== undefined;
    if (isGuarded) delete request.headers.range;
    answer(request, response, large, { headers: isGuarded ? {} : { etag: '"x"' } });
  },
  'misspells Content-Range, and knows no HEAD': (request, response) => {
    if (request.method === 'HEAD') return response.writeHead(405).end();
    const start = Number(/=(\d+)/.exec(request.headers.range ?? '')?.[1]);
    const range = `Bytes=${start} - 99999999/${large.length}`;
    return answer(request, response, large, { headers: { 'content-range': range } });
  },
  'does not say the size but to HEAD': (request, response) => {
    const range = request.headers.range?.replace(/.*=(\d+)-.*/, 'bytes $1-9999999/*');
    answer(request, response, large, { headers: range ? { 'content-range': range } : {} });
  },
  'ignores Range and says no length': (_, response) =>
    response.writeHead(200).write(large, () => response.end()),
  'ignores Range and compresses': (_, response) => {
    const body = gzipSync(large);
    response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': body.length }).end(body);
  },
  'compresses ranges': (request, response) => {
    const { range } = request.headers;
    const all = gzipSync(large);
    const [, start = 0, last = all.length - 1] = /(\d+)-(\d+)/.exec(range ?? '')?.map(Number) ?? [];
    const body = all.subarray(start, last + 1);
    const headers = { 'content-encoding': 'gzip', 'content-length': body.length };
    const partial = {
      ...headers,
      'content-range': `bytes ${start}-${start + body.length - 1}/${all.length}`,
    };
    response.writeHead(range ? 206 : 200, range ? partial : headers).end(body);
  },
  'answers with several parts': (request, response) => {
    const headers = request.headers.range ? { 'content-type': 'multipart/byteranges; boundary=x' } : {};
    answer(request, response, large, { headers });
  },
  'refuses long ranges (416)': (request, response) =>
    request.headers.range
      ? response.writeHead(416, { 'content-range': `bytes */${large.length}` }).end()
      : answer(request, response, large),
};

for (const [what, handler] of Object.entries(readable))
  test(`a server that ${what}: the file is read, without a wait`, async (t) => {
    const { url } = await serve(t, handler);
    assert.equal((await readLarge(url, noWait)).byteLength, large.length);
  });

test('416 for a range that ends behind the file: it is asked for as much as there is', async (t) => {
  const refuse = (/** @type {string | undefined} */ said, isHeadKnown = true) =>
    /** @type {Handler} */ (
      (request, response) => {
        const last = Number(/-(\d+)$/.exec(request.headers.range ?? '')?.[1] ?? 0);
        if (request.method === 'HEAD' && !isHeadKnown) response.writeHead(405).end();
        else if (last < small.length) answer(request, response, small);
        else response.writeHead(416, said === undefined ? {} : { 'content-range': said }).end();
      }
    );
  for (const [handler, ranges] of /** @type {[Handler, (string | undefined)[]][]} */ ([
    [refuse(`bytes */${small.length}`), ['bytes=0-1999999', `bytes=0-${small.length - 1}`]],
    [refuse(undefined), ['bytes=0-1999999', undefined, `bytes=0-${small.length - 1}`]],
    [refuse(undefined, false), ['bytes=0-1999999', undefined, undefined]],
  ])) {
    const { url, requests } = await serve(t, handler);
    const gguf = await openGguf(url, noWait);
    assert.deepEqual(await gguf.read('a.weight'), countedBytes(864));
    assert.deepEqual(
      requests.slice(0, 3).map(({ range }) => range),
      ranges,
    );
  }
  const { url } = await serve(t, (_, response) =>
    response.writeHead(416, { 'content-range': 'bytes */0' }).end(),
  );
  await refused(openGguf(url, noWait), /empty file/, { url, status: 416 });
});

test('If-Range is sent with strong tags only, and no more after it was misunderstood', async (t) => {
  for (const [etag, guards] of /** @type {[string, (string | undefined)[]][]} */ ([
    ['"x"', [undefined, '"x"', undefined, undefined]],
    ['W/"x"', [undefined, undefined, undefined]],
  ])) {
    const { url, requests } = await serve(t, (request, response) => {
      if (request.headers['if-range']) delete request.headers.range;
      answer(request, response, large, { headers: { etag } });
    });
    const gguf = await openGguf(url, noWait);
    await gguf.read('t1');
    await gguf.read('t2');
    assert.deepEqual(
      requests.map(({ ifRange }) => ifRange),
      guards,
      etag,
    );
  }
});

/* ---- mistakes that are refused, with a description ---- */

/**
 * A handler that answers the first request correctly.
 * @param {Handler} then @returns {Handler}
 */
const later = (then) => (request, response, n) =>
  n === 1 ? answer(request, response, large) : then(request, response, n);

/** @type {Record<string, [handler: Handler, message: RegExp, fields: Partial<GgufError>]>} */
const wrong = {
  'starts elsewhere': [
    (request, response) =>
      answer(request, response, large, { headers: { 'content-range': `bytes 7-1000/${large.length}` } }),
    /asked for its beginning.*offset 7/,
    { status: 206, got: 7, expected: 0 },
  ],
  'hides the size': [
    (request, response) =>
      request.method === 'HEAD'
        ? response.writeHead(501).end()
        : answer(request, response, large, { headers: { 'content-range': 'rows 1-2' } }),
    /cannot learn the size.*"rows 1-2"/,
    { status: 206 },
  ],
  'refuses ranges, and the whole': [
    (request, response) => response.writeHead(request.headers.range ? 416 : 403).end(),
    /refuses its beginning \(HTTP 416\).*HTTP 403/,
    { status: 403 },
  ],
  'compresses ranges of a file too large to hold': [
    (request, response) =>
      request.headers.range
        ? response.writeHead(206, { 'content-encoding': 'br', 'content-range': 'bytes 0-1/2' }).end('xx')
        : response.writeHead(200, { 'content-length': 300 * MB }).write('x'),
    /compresses ranges \(Content-Encoding br\).*314572800.*268435456/,
    { status: 200, got: 300 * MB, expected: 256 * MB },
  ],
  'answers with several parts, later': [
    later((request, response) =>
      answer(request, response, large, { headers: { 'content-type': 'multipart/byteranges; boundary=x' } }),
    ),
    /several parts \(multipart\/byteranges\)/,
    { status: 206 },
  ],
  'has another size, later': [
    later((request, response) => {
      const range = request.headers.range?.replace('=', ' ');
      answer(request, response, large, { headers: { 'content-range': `${range}/5000000` } });
    }),
    new RegExp(`changed from ${large.length} to 5000000`),
    { status: 206, changed: true, got: 5_000_000, expected: large.length },
  ],
  'has less by then': [
    later((_, response) => response.writeHead(416, { 'content-range': 'bytes */77' }).end()),
    new RegExp(`changed from ${large.length} to 77`),
    { status: 416, changed: true, got: 77, expected: large.length },
  ],
  'sends the whole, later': [
    later((_, response) => response.writeHead(200).end(large)),
    /stopped answering Range requests \(HTTP 200\)/,
    { status: 200 },
  ],
  'sends another whole, later': [
    later((_, response) => response.writeHead(200, { 'content-length': 5 }).end('12345')),
    /the file changed/,
    { status: 200, changed: true },
  ],
  'sends more than was asked for': [
    later((_, response) => response.writeHead(206).end(large)),
    /got more than the \d+ bytes asked for/,
    { status: 206 },
  ],
  'sends nothing': [later((_, response) => response.writeHead(206).end()), /got 0 of \d+ bytes/, { got: 0 }],
  'sends a range that ends before it starts': [
    later((request, response) => {
      const start = /\d+/.exec(request.headers.range ?? '')?.[0];
      answer(request, response, large, { headers: { 'content-range': `bytes ${start}-0/${large.length}` } });
    }),
    /a range that ends at 1/,
    { status: 206, got: 1 },
  ],
  'sends what is not compressed as compressed': [
    later((request, response) =>
      answer(request, response, large, { headers: { 'content-encoding': 'gzip' } }),
    ),
    /compresses ranges \(Content-Encoding gzip\)/,
    {},
  ],
};

for (const [what, [handler, message, fields]] of Object.entries(wrong))
  test(`a server that ${what} is told so`, async (t) => {
    const { url } = await serve(t, handler);
    await refused(readLarge(url), message, { url, ...fields });
  });

test('a redirect to a page is told, without the query of its address', async (t) => {
  const { url } = await serve(t, (request, response) =>
    request.url === '/model.gguf'
      ? response.writeHead(302, { location: '/login?token=secret' }).end()
      : response.writeHead(200, { 'content-type': 'text/html' }).end('<!DOCTYPE html><title>Log in</title>'),
  );
  await assert.rejects(openGguf(url, noWait), (/** @type {any} */ error) => {
    assert.match(
      error.message,
      /model\.gguf from http:\/\/127\.0\.0\.1:\d+\/login: .*HTML page \("Log in"\)/,
    );
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
});

/* ---- pages, which do not learn why a request failed ---- */

test('a page that may not read from a server hears what can be known of it', async (t) => {
  replaceGlobal(t, 'location', { value: new URL('https://page.example/app/') });
  /** @type {string[]} */
  const calls = [];
  let isReachable = true;
  replaceGlobal(t, 'fetch', {
    writable: true,
    value: async (/** @type {string} */ _, /** @type {any} */ { method = 'GET', mode = 'cors' }) => {
      calls.push(`${method} ${mode}`);
      if (mode === 'no-cors' && isReachable) return new Response('');
      throw new TypeError('Failed to fetch');
    },
  });
  const url = 'https://models.example/m.gguf';
  await refused(openGguf(url, quick), /Failed to fetch; the server answers, but .*CORS/, { url });
  assert.deepEqual(calls, ['GET cors', 'HEAD no-cors', 'GET cors', 'HEAD no-cors'], 'one attempt more');
  isReachable = false;
  calls.length = 0;
  await refused(openGguf(url, quick), /Failed to fetch; .*network.*address.*CORS.*Content-Security-Policy/, {
    url,
  });
  assert.equal(calls.filter((call) => call === 'GET cors').length, 1 + quick.retries);
  for (const [address, message] of /** @type {[string, RegExp][]} */ ([
    ['http://models.example/m.gguf', /mixed content.*https/],
    ['blob:https://page.example/1234', /no Blob|blob: URL/],
  ])) {
    calls.length = 0;
    await refused(openGguf(address, noWait), message, {}, address);
    assert.ok(calls.length <= 1, address);
  }
  // A page may ask its own machine.
  await refused(openGguf('http://localhost:1/m.gguf', quick), /CORS/, {});
});
