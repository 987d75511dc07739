/* The command serve: OpenAI's API over HTTP, for programs on the same machine. */

import { createOpenAI } from '../openai/index.js';
import { makeServer } from './http.js';
import { COMMON, MODEL, UsageError } from './options.js';
import { engineText, loadModel } from './output.js';

/** @param {unknown} value @param {string} option @param {number} from @param {number} to */
function checkInteger(value, option, from, to) {
  if (Number.isInteger(value) && Number(value) >= from && Number(value) <= to) return Number(value);
  throw new UsageError(`--${option} must be an integer from ${from} to ${to}, got ${value}`);
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
    const port = checkInteger(values.port ?? 8080, 'port', 0, 65535);
    const queue = checkInteger(values.queue ?? 16, 'queue', 1, 10_000);
    const model = await loadModel(file, values, io);
    try {
      const { name, template, cors } = values;
      const api = createOpenAI(model, { name, template });
      const server = makeServer({ fetch: api.fetch, queue, ...(cors !== undefined && { cors }) });
      const url = `http://127.0.0.1:${await listen(server, port)}/v1`;
      const [{ id }] = (await api.models.list()).data;
      io.stdout.write(
        values.json
          ? `${JSON.stringify({ url, model: id })}\n`
          : `${url} answers with ${id}; Ctrl-C ends it\n`,
      );
      if (!values.json) io.stderr.write(`${engineText(model.info)}\n`);
      if (!model.info.tokenizer.chat && template === undefined)
        io.stderr.write('fused-matmul: the file has no chat template: conversations need --template NAME\n');
      await new Promise((resolve) => {
        server.once('close', resolve);
        const end = () => {
          server.close();
          server.closeAllConnections();
        };
        if (io.signal.aborted) end();
        else io.signal.addEventListener('abort', end, { once: true });
      });
      io.signal.throwIfAborted();
    } finally {
      model.dispose();
    }
  },
};
