/* fused-matmul/openai: a model with the interface of OpenAI's API. */

import { checkNames } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { checkSignal } from '../llama/options.js';
import { ChatStream, completion, stream, Templates } from './answer.js';
import { embeddings } from './embeddings.js';
import { respond } from './fetch.js';

export { ChatStream };

/** @typedef {import('../llama/model.js').Llama} Llama */
/** @typedef {import('../worker/llama-client.js').WorkerLlama} WorkerLlama */
/** @typedef {import('./types.js').AnsweredCall} AnsweredCall */
/** @typedef {import('./types.js').AnswerMessage} AnswerMessage */
/** @typedef {import('./types.js').CallDelta} CallDelta */
/** @typedef {import('./types.js').CalledFunction} CalledFunction */
/** @typedef {import('./types.js').ChanceOfToken} ChanceOfToken */
/** @typedef {import('./types.js').ChatCall} ChatCall */
/** @typedef {import('./types.js').ChatChoice} ChatChoice */
/** @typedef {import('./types.js').ChatChunk} ChatChunk */
/** @typedef {import('./types.js').ChatCompletion} ChatCompletion */
/** @typedef {import('./types.js').ChatDelta} ChatDelta */
/** @typedef {import('./types.js').ChatFunction} ChatFunction */
/** @typedef {import('./types.js').ChatLogprob} ChatLogprob */
/** @typedef {import('./types.js').ChatLogprobs} ChatLogprobs */
/** @typedef {import('./types.js').ChatMessage} ChatMessage */
/** @typedef {import('./types.js').ChatPart} ChatPart */
/** @typedef {import('./types.js').ChatRequest} ChatRequest */
/** @typedef {import('./types.js').ChatSchema} ChatSchema */
/** @typedef {import('./types.js').ChatResponseFormat} ChatResponseFormat */
/** @typedef {import('./types.js').ChatStreamOptions} ChatStreamOptions */
/** @typedef {import('./types.js').ChatTool} ChatTool */
/** @typedef {import('./types.js').ChatToolChoice} ChatToolChoice */
/** @typedef {import('./types.js').ChatUsage} ChatUsage */
/** @typedef {import('./types.js').ChunkChoice} ChunkChoice */
/** @typedef {import('./types.js').CreateChat} CreateChat */
/** @typedef {import('./types.js').EmbeddingItem} EmbeddingItem */
/** @typedef {import('./types.js').EmbeddingRequest} EmbeddingRequest */
/** @typedef {import('./types.js').EmbeddingResponse} EmbeddingResponse */
/** @typedef {import('./types.js').EmbeddingUsage} EmbeddingUsage */
/** @typedef {import('./types.js').FinishReason} FinishReason */
/** @typedef {import('./types.js').FunctionName} FunctionName */
/** @typedef {import('./types.js').ModelEntry} ModelEntry */
/** @typedef {import('./types.js').ModelList} ModelList */
/** @typedef {import('./types.js').PromptTokens} PromptTokens */
/** @typedef {import('./types.js').RequestOptions} RequestOptions */

/**
 * @typedef {object} OpenAIOptions
 * @property {string | undefined} [name]  Name of the model in answers. Default: what the file calls it,
 *   or 'local'.
 * @property {string | undefined} [template]  Chat template to use instead of the file's: Jinja, or the
 *   name of a common one, as for `Llama.chat`.
 */

/** Conversations: `chat.completions` of OpenAI's API. */
export class ChatCompletions {
  #parts;

  /**
   * @hideconstructor
   * @param {{ model: Llama | WorkerLlama, templates: Templates, name: string }} parts
   */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * Answers a conversation: in chunks with `stream: true`, which `for await` reads, else as a whole.
   * While other calls use the model, it waits.
   * @type {CreateChat}
   */
  create = async (/** @type {ChatRequest} */ request, /** @type {RequestOptions} */ options = {}) => {
    const signal = signalOf(options);
    const answer = request?.stream ? stream : completion;
    return /** @type {any} */ (await answer(this.#parts, request, signal));
  };
}

/** Vectors of texts: `embeddings` of OpenAI's API. */
export class Embeddings {
  #parts;

  /** @hideconstructor @param {{ model: Llama | WorkerLlama, name: string }} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * Makes a vector of a text, or of each text of a list. While other calls use the model, it waits.
   * @param {EmbeddingRequest} request
   * @param {RequestOptions} [options]
   * @returns {Promise<EmbeddingResponse>}
   */
  async create(request, options = {}) {
    return embeddings(this.#parts, request, signalOf(options));
  }
}

/** The models that there are: `models` of OpenAI's API. */
export class Models {
  #entry;

  /** @hideconstructor @param {string} name */
  constructor(name) {
    const created = Math.floor(Date.now() / 1000);
    this.#entry = { id: name, object: /** @type {const} */ ('model'), created, owned_by: 'local' };
  }

  /** Lists the one model. @returns {Promise<ModelList>} */
  async list() {
    return { object: 'list', data: [{ ...this.#entry }] };
  }
}

/** Conversations: `chat` of OpenAI's API. */
export class Chat {
  /** @hideconstructor @param {ChatCompletions} completions */
  constructor(completions) {
    /** Answers to conversations. */
    this.completions = completions;
  }
}

/** A model with the interface of OpenAI's API. createOpenAI makes it. */
export class LocalOpenAI {
  /**
   * @hideconstructor
   * @param {Llama | WorkerLlama} model
   * @param {OpenAIOptions} options
   */
  constructor(model, options) {
    const name = options.name ?? model.info.name ?? 'local';
    const parts = { model, name, templates: new Templates(model, options.template) };
    /** Conversations. */
    this.chat = new Chat(new ChatCompletions(parts));
    /** Vectors of texts. */
    this.embeddings = new Embeddings(parts);
    /** The models that there are: this one. */
    this.models = new Models(name);
  }

  /**
   * Answers a request of a client of OpenAI's API, as fetch would, without a network:
   * `new OpenAI({ fetch: local.fetch, baseURL: 'http://local/v1', apiKey: 'none' })`. It serves
   * /v1/chat/completions, /v1/embeddings and /v1/models.
   * @param {string | URL | Request} input
   * @param {RequestInit} [init]
   * @returns {Promise<Response>}
   */
  fetch = async (input, init) => respond(this, new Request(input, init));
}

/**
 * Gives a model the interface of OpenAI's API: `chat.completions.create`, `embeddings.create`,
 * `models.list`, and a `fetch` for clients of that API.
 * @param {Llama | WorkerLlama} model  a model, in this thread or in a worker
 * @param {OpenAIOptions} [options]
 * @returns {LocalOpenAI}
 * @throws {ArgumentError} the model is none, or an option is unknown
 */
export function createOpenAI(model, options = {}) {
  if (typeof model?.chat !== 'function' || typeof model.formatChat !== 'function')
    throw new ArgumentError(
      `model must be a model of Llama.load or createWorkerLlama, got ${show(model)}; is an await missing?`,
    );
  checkNames(options, ['name', 'template']);
  for (const name of /** @type {const} */ (['name', 'template']))
    if (options[name] !== undefined && typeof options[name] !== 'string')
      throw new ArgumentError(`${name} must be a text, got ${show(options[name])}`);
  return new LocalOpenAI(model, options);
}

/** @param {RequestOptions} options */
function signalOf(options) {
  checkNames(options, ['signal']);
  const signal = options.signal ?? undefined;
  checkSignal(signal);
  return signal;
}
