/* Answers a request, as a whole or in chunks. */

import { ArgumentError } from '../errors.js';
import { ModelError } from '../llama/errors.js';
import { readRequest } from './request.js';
import { Splitter } from './splitter.js';
import { aroundLike, aroundOf, openingLike, openingOf, SAMPLE } from './tool-calls.js';

/** @typedef {import('../llama/model.js').Llama} Llama */
/** @typedef {import('../worker/llama-client.js').WorkerLlama} WorkerLlama */
/** @typedef {import('../llama/generation.js').Generation} Generation */
/** @typedef {import('./request.js').Plan} Plan */
/** @typedef {import('./splitter.js').Part} Part */
/** @typedef {import('./types.js').AnsweredCall} AnsweredCall */
/** @typedef {import('./types.js').ChatChunk} ChatChunk */
/** @typedef {import('./types.js').ChatCompletion} ChatCompletion */
/** @typedef {import('./types.js').ChatRequest} ChatRequest */
/** @typedef {import('./types.js').FinishReason} FinishReason */

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** @param {number} length */
const randomId = (length) =>
  Array.from({ length }, () => LETTERS[Math.floor(Math.random() * LETTERS.length)]).join('');

/** A message of a user that has nothing to do with calls or thoughts. */
const SAID = Object.freeze({ role: 'user', content: 'x' });

/** Ends of prompts in which the model begins with its thoughts. */
const THOUGHT_BEGUN = /<think>\s*$/;

/** Questions about the chat template: whether prompts begin thoughts, and how a call begins. */
export class Templates {
  #model;
  #template;

  /** @param {Llama | WorkerLlama} model @param {string | undefined} template */
  constructor(model, template) {
    this.#model = model;
    this.#template = template;
  }

  /** Options of `formatChat` for a plan. @param {Plan['options']} options */
  formatOf({ tools, variables }) {
    return {
      ...(this.#template !== undefined && { template: this.#template }),
      ...(tools && { tools }),
      ...(variables && { variables }),
    };
  }

  /**
   * Whether prompts end with the beginning of thoughts.
   * @param {Plan['options']} options
   */
  async startsInThought({ variables }) {
    try {
      const text = await this.#model.formatChat([SAID], this.formatOf({ ...(variables && { variables }) }));
      return THOUGHT_BEGUN.test(text);
    } catch (error) {
      // The conversation itself will say what is wrong.
      if (error instanceof ModelError) return false;
      throw error;
    }
  }

  /**
   * An answer with a call, as the template writes it after a prompt; empty if it cannot be told.
   * @param {Plan['options']} options
   */
  async #sample(options) {
    const format = this.formatOf(options);
    const { name, argument } = SAMPLE;
    const call = { id: 'abcdefghi', function: { name, arguments: { [argument]: 1 } } };
    const answer = { role: 'assistant', content: '', tool_calls: [call] };
    try {
      const before = await this.#model.formatChat([SAID], format);
      const after = await this.#model.formatChat([SAID, answer], { ...format, addGenerationPrompt: false });
      const text = after.startsWith(before) ? after.slice(before.length) : '';
      const splitter = new Splitter(new Map([[name, [argument]]]), false);
      return [...splitter.push(text), ...splitter.end()].some((part) => 'call' in part) ? text : '';
    } catch (error) {
      if (error instanceof ModelError) return '';
      throw error;
    }
  }

  /**
   * The text that an answer begins with which must call a tool, and the form of what follows; there is
   * none where the arguments are no JSON.
   * @param {Plan} plan
   * @returns {Promise<{ opening: string, form?: import('../llama/structured/calls.js').CallFormat }>}
   */
  async opening({ options, force }) {
    if (force === false) return { opening: '' };
    const tool = typeof force === 'string' ? force : undefined;
    const sample = await this.#sample(options);
    const like = openingLike(sample, tool);
    const prompt =
      like === undefined ? await this.#model.formatChat([SAID], this.formatOf(options)) : undefined;
    const opening = like ?? openingOf(prompt ?? '', tool);
    if (opening === undefined)
      throw new ArgumentError(
        `tool_choice ${force === true ? "'required'" : 'for a certain function'} needs a model whose template has a known format of calls (Hermes, Qwen, Llama 3, Mistral, LFM2, Phi); with this one, use 'auto'`,
      );
    const around = prompt === undefined ? aroundLike(sample) : aroundOf(prompt);
    if (!around) return { opening };
    const form = {
      type: /** @type {const} */ ('call'),
      tools: options.tools ?? [],
      named: tool !== undefined,
      around,
    };
    // A schema that cannot be followed is an error before anything is computed.
    const { callGrammar } = await import('../llama/structured/calls.js');
    callGrammar(form);
    return { opening, form };
  }
}

/** An answer that is being written. */
class Answer {
  #plan;
  #generation;
  #splitter;
  #opening;
  #nCalls = 0;
  #nLogprobs = 0;

  /**
   * @param {Plan} plan
   * @param {Generation | import('../worker/llama-generation.js').WorkerGeneration} generation
   * @param {{ opening: string, startsInThought: boolean }} prompt
   */
  constructor(plan, generation, { opening, startsInThought }) {
    this.#plan = plan;
    this.#generation = generation;
    this.#opening = opening;
    this.#splitter = new Splitter(plan.tools, startsInThought);
  }

  /** Ends the answer where it is. */
  stop() {
    this.#generation.stop();
  }

  /** @returns {AsyncGenerator<Part, void, void>} */
  async *parts() {
    yield* this.#kept(this.#splitter.push(this.#opening));
    for await (const piece of this.#generation) yield* this.#kept(this.#splitter.push(piece));
    yield* this.#kept(this.#splitter.end());
  }

  /** The parts without calls that are one too many. @param {Part[]} parts */
  *#kept(parts) {
    for (const part of parts) {
      if ('call' in part) {
        const { single } = this.#plan;
        if (single && this.#nCalls > 0) continue;
        this.#nCalls += 1;
        if (single) this.#generation.stop();
      }
      yield part;
    }
  }

  /** Log probabilities of the tokens since the last call. */
  logprobs() {
    if (!this.#plan.logprobs) return null;
    const { logprobs } = this.#generation;
    const content = logprobs.slice(this.#nLogprobs).map(({ top, ...one }) => ({
      ...chance(one),
      top_logprobs: top.map(chance),
    }));
    this.#nLogprobs = logprobs.length;
    return { content, refusal: null };
  }

  /** @returns {FinishReason} */
  get finishReason() {
    if (this.#nCalls > 0) return 'tool_calls';
    const { finishReason } = this.#generation.stats;
    return finishReason === 'length' || finishReason === 'context' ? 'length' : 'stop';
  }

  get usage() {
    const { promptTokens, tokens, reusedTokens } = this.#generation.stats;
    return {
      prompt_tokens: promptTokens,
      completion_tokens: tokens,
      total_tokens: promptTokens + tokens,
      prompt_tokens_details: { cached_tokens: reusedTokens },
    };
  }
}

/** @param {import('../llama/hooked-sampler.js').TokenChance} chance */
const chance = ({ bytes, logprob }) => ({
  token: new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes),
  bytes: [...bytes],
  logprob,
});

/** @param {import('./tool-calls.js').Call} call @returns {AnsweredCall} */
const answeredCall = (call) => ({ id: randomId(9), type: 'function', function: call });

/**
 * Begins an answer.
 * @param {{ model: Llama | WorkerLlama, templates: Templates, name: string }} parts
 * @param {ChatRequest} request
 * @param {AbortSignal | undefined} signal
 */
async function begin({ model, templates, name }, request, signal) {
  const plan = readRequest(request);
  const same = facts(name);
  signal?.throwIfAborted();
  const startsInThought = await templates.startsInThought(plan.options);
  const { opening, form } = await templates.opening(plan);
  // A model that must call a tool or write JSON has no thoughts before.
  const endsThought = startsInThought && (opening || plan.options.responseFormat);
  const answerStart = endsThought ? `</think>\n\n${opening}` : opening;
  const generation = await model.chat(plan.messages, {
    ...plan.options,
    ...(form && { responseFormat: /** @type {any} */ (form) }),
    ...templates.formatOf({}),
    ...(answerStart && { answerStart }),
    ...(signal && { signal }),
  });
  const answer = new Answer(plan, generation, { opening: answerStart, startsInThought });
  return { plan, answer, same };
}

/** Facts that an answer and all its chunks have. @param {string} model */
const facts = (model) => ({
  id: `chatcmpl-${randomId(24)}`,
  created: Math.floor(Date.now() / 1000),
  model,
});

/**
 * @param {{ model: Llama | WorkerLlama, templates: Templates, name: string }} parts
 * @param {ChatRequest} request
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<ChatCompletion>}
 */
export async function completion(parts, request, signal) {
  const { answer, same } = await begin(parts, request, signal);
  let [content, reasoning] = ['', ''];
  /** @type {AnsweredCall[]} */
  const calls = [];
  for await (const part of answer.parts()) {
    if ('content' in part) content += part.content;
    else if ('reasoning' in part) reasoning += part.reasoning;
    else calls.push(answeredCall(part.call));
  }
  const message = {
    role: /** @type {const} */ ('assistant'),
    content: content === '' && calls.length > 0 ? null : content,
    refusal: null,
    ...(reasoning !== '' && { reasoning }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
  const { finishReason: finish_reason, usage } = answer;
  return {
    ...same,
    object: 'chat.completion',
    choices: [{ index: 0, message, finish_reason, logprobs: answer.logprobs() }],
    usage,
  };
}

/** The chunks of an answer. It is read once, by `for await`. */
export class ChatStream {
  /** Its abort() ends the answer where it is. */
  controller = new AbortController();
  #chunks;

  /**
   * @hideconstructor
   * @param {ReturnType<typeof facts>} same
   * @param {Plan} plan
   * @param {Answer} answer
   */
  constructor(same, plan, answer) {
    this.controller.signal.addEventListener('abort', () => answer.stop(), { once: true });
    this.#chunks = chunks(same, plan, answer);
  }

  /** Iterates over the chunks. Leaving the loop ends the answer. */
  [Symbol.asyncIterator]() {
    return this.#chunks;
  }
}

/**
 * @param {{ model: Llama | WorkerLlama, templates: Templates, name: string }} parts
 * @param {ChatRequest} request
 * @param {AbortSignal | undefined} signal
 */
export async function stream(parts, request, signal) {
  const { plan, answer, same } = await begin(parts, request, signal);
  return new ChatStream(same, plan, answer);
}

/**
 * @param {ReturnType<typeof facts>} ofAll
 * @param {Plan} plan
 * @param {Answer} answer
 * @returns {AsyncGenerator<ChatChunk, void, void>}
 */
async function* chunks(ofAll, plan, answer) {
  const same = {
    ...ofAll,
    object: /** @type {const} */ ('chat.completion.chunk'),
    ...(plan.usage && { usage: null }),
  };
  /**
   * @param {import('./types.js').ChatDelta} delta
   * @param {FinishReason | null} [finish_reason]
   * @returns {ChatChunk}
   */
  const chunk = (delta, finish_reason = null) => ({
    ...same,
    choices: [{ index: 0, delta, finish_reason, logprobs: answer.logprobs() }],
  });
  yield chunk({ role: 'assistant', content: '' });
  let nCalls = 0;
  for await (const part of answer.parts())
    yield chunk('call' in part ? { tool_calls: [{ index: nCalls++, ...answeredCall(part.call) }] } : part);
  yield chunk({}, answer.finishReason);
  if (plan.usage) yield { ...same, choices: [], usage: answer.usage };
}
