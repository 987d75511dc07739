/* The command serve: OpenAI's API over HTTP, for programs on the same machine. */

import { checkRange } from '../llama/options.js';
import { errorResponse } from '../openai/fetch.js';
import { createOpenAI } from '../openai/index.js';
import { makeServer } from './http.js';
import { COMMON, MODEL, UsageError } from './options.js';
import { engineText, loadModel } from './output.js';

/**
 * @param {string | undefined} cors
 * @throws {UsageError} it is no origin, and would fit none
 */
function checkOrigin(cors) {
  if (cors === undefined || cors === '*') return;
  if (!URL.canParse(cors) || new URL(cors).origin !== cors)
    throw new UsageError(`--cors must be an origin such as https://example.com, or *, got ${cors}`);
}

/**
 * @param {import('node:http').Server} server
 * @param {number} port
 * @returns {Promise<number>} the port, also where 0 was given
 */
function listen(server, port) {
  return new Promise((resolve, reject) => {
    server.once('error', (/** @type {NodeJS.ErrnoException} */ error) =>
      reject(
        error.code === 'EADDRINUSE' || error.code === 'EACCES'
          ? new UsageError(`--port ${port} is in use or not allowed; choose another one, or 0 for any`)
          : error,
      ),
    );
    server.listen(port, '127.0.0.1', () => {
      const address = /** @type {import('node:net').AddressInfo} */ (server.address());
      resolve(address.port);
    });
  });
}

/** @type {import('./options.js').Command} */
export const serve = {
  name: 'serve',
  summary:
    "Serves OpenAI's API on this machine: /v1/chat/completions, /v1/embeddings and /v1/models. Requests are answered one after the other. Ctrl-C ends it.",
  usage: 'MODEL.gguf [options]',
  nArguments: 1,
  options: {
    port: { kind: 'number', value: 'N', help: 'port on 127.0.0.1; 0 takes any that is free (8080)' },
    name: { kind: 'text', value: 'NAME', help: 'name of the model in answers (what the file calls it)' },
    template: { kind: 'text', value: 'NAME', help: "chat template, such as chatml (the file's own)" },
    queue: { kind: 'number', value: 'N', help: 'requests that may wait or be answered at a time (16)' },
    cors: { kind: 'text', value: 'ORIGIN', help: 'web pages that may ask, * for all (none)' },
    ...MODEL,
    ...COMMON,
  },
  examples: [
    'example:',
    '  fused-matmul serve model.gguf --port 8080',
    '  curl http://127.0.0.1:8080/v1/chat/completions -H "content-type: application/json" \\',
    '    -d \'{ "messages": [{ "role": "user", "content": "Hello" }] }\'',
  ].join('\n'),
  async run(values, [file], io) {
    const port = checkRange(values.port ?? 8080, '--port', { from: 0, to: 65535, integer: true });
    const queue = checkRange(values.queue ?? 16, '--queue', { from: 1, to: 10_000, integer: true });
    const { name, template, cors } = values;
    checkOrigin(cors);
    /** @type {import('../openai/index.js').LocalOpenAI | undefined} */
    let api;
    /** @type {import('../llama/model.js').Llama | undefined} */
    let model;
    const server = makeServer({
      fetch: async (...request) =>
        api ? api.fetch(...request) : errorResponse(503, 'the model is being loaded', 'server_error'),
      queue,
      ...(cors !== undefined && { cors }),
    });
    // A port that is in use is noticed before a large file is read.
    const url = `http://127.0.0.1:${await listen(server, port)}/v1`;
    try {
      model = await loadModel(file, values, io);
      api = createOpenAI(model, { name, template });
      const [{ id }] = (await api.models.list()).data;
      io.stdout.write(
        values.json
          ? `${JSON.stringify({ url, model: id })}\n`
          : `${url} answers with ${id}; Ctrl-C ends it\n`,
      );
      if (!values.json) io.stderr.write(`${engineText(model.info)}\n`);
      if (model.info.causal && !model.info.tokenizer.chat && template === undefined)
        io.stderr.write('fused-matmul: the file has no chat template: conversations need --template NAME\n');
      await new Promise((resolve) => {
        if (io.signal.aborted) resolve(undefined);
        else io.signal.addEventListener('abort', resolve, { once: true });
      });
      io.signal.throwIfAborted();
    } finally {
      server.close();
      server.closeAllConnections();
      model?.dispose();
    }
  },
};
