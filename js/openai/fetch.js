/* Answers HTTP requests of clients of OpenAI's API: the objects of fetch, without a network. */

import { ArgumentError, FmError } from '../errors.js';

/** @typedef {import('./index.js').LocalOpenAI} LocalOpenAI */

/**
 * Statuses of errors, by their codes.
 * @type {Record<string, [status: number, type: string, code: string | null]>}
 */
const STATUSES = {
  FM_ARGUMENT: [400, 'invalid_request_error', null],
  FM_SHAPE: [400, 'invalid_request_error', null],
  FM_CONTEXT: [400, 'invalid_request_error', 'context_length_exceeded'],
  FM_MODEL: [400, 'invalid_request_error', null],
  FM_BUSY: [503, 'server_error', 'busy'],
};

/** @param {number} status @param {string} message @param {string} [type] @param {string | null} [code] */
export const errorResponse = (status, message, type = 'invalid_request_error', code = null) =>
  Response.json({ error: { message, type, param: null, code } }, { status });

/** @param {unknown} error */
function responseTo(error) {
  const message = error instanceof Error ? error.message : String(error);
  const [status, type, code] = (error instanceof FmError && STATUSES[error.code]) || [
    500,
    'server_error',
    null,
  ];
  return errorResponse(status, message, type, code);
}

/** The body of a request, which must be a JSON object. @param {Request} request @returns {Promise<any>} */
async function bodyOf(request) {
  const text = await request.text();
  try {
    const body = JSON.parse(text);
    if (typeof body === 'object' && body !== null && !Array.isArray(body)) return body;
  } catch {}
  throw new ArgumentError(`the body must be a JSON object, got ${text.length} characters of something else`);
}

/**
 * @param {LocalOpenAI} api
 * @param {Request} request
 * @returns {Promise<Response>}
 */
export async function respond(api, request) {
  const { pathname } = new URL(request.url);
  const route = /\/(chat\/completions|embeddings|models(?:\/.+)?)\/?$/.exec(pathname)?.[1];
  const method = route?.startsWith('models') ? 'GET' : 'POST';
  if (route === undefined)
    return errorResponse(
      404,
      `there is no ${pathname}; there are /v1/chat/completions, /v1/embeddings and /v1/models`,
    );
  if (request.method !== method)
    return errorResponse(405, `${pathname} takes ${method} requests, got ${request.method}`);
  const { signal } = request;
  try {
    if (method === 'GET') return await models(api, route);
    const body = await bodyOf(request);
    if (route === 'embeddings') return Response.json(await api.embeddings.create(body, { signal }));
    const answer = await api.chat.completions.create(body, { signal });
    return Symbol.asyncIterator in answer ? eventStream(answer, signal) : Response.json(answer);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    return responseTo(error);
  }
}

/** @param {LocalOpenAI} api @param {string} route */
async function models(api, route) {
  const list = await api.models.list();
  if (route === 'models') return Response.json(list);
  const id = decoded(route.slice('models/'.length));
  const found = list.data.find((one) => one.id === id);
  if (found) return Response.json(found);
  const names = list.data.map((one) => one.id).join(', ');
  return errorResponse(
    404,
    `there is no model "${id.slice(0, 100)}"; there is ${names}`,
    undefined,
    'model_not_found',
  );
}

/** The id in an address; what cannot be decoded is the id itself. @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Chunks as server-sent events.
 * @param {import('./answer.js').ChatStream} stream
 * @param {AbortSignal} signal  of the request
 */
function eventStream(stream, signal) {
  const chunks = stream[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  const event = (/** @type {string} */ data) => encoder.encode(`data: ${data}\n\n`);
  const body = new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await chunks.next();
        controller.enqueue(event(done ? '[DONE]' : JSON.stringify(value)));
        if (done) controller.close();
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        // The status is sent already, so the error is an event.
        const { error: sent } = await responseTo(error).json();
        controller.enqueue(event(JSON.stringify({ error: sent })));
        controller.close();
      }
    },
    async cancel() {
      // It ends a chunk that is being waited for, which return() alone would wait for too.
      stream.controller.abort();
      await chunks.return();
    },
  });
  const headers = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };
  return new Response(body, { headers });
}
