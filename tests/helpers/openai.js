/** A model for tests of the interface of OpenAI's API, and one that writes a certain text. */
import assert from 'node:assert/strict';
import { openGguf } from '../../js/gguf/index.js';
import { Llama } from '../../js/llama/index.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { TINY_TALES } from './llama.js';

/** @import { TestContext } from 'node:test' */

/** A template with tools in the way of Hermes, and thoughts if they are asked for. */
export const TEMPLATE = `{%- if tools %}Tools in <tool_call></tool_call>: {{ tools | tojson }}\n{% endif -%}
{%- for m in messages %}{{ m.role }}: {{ m.content }}
{%- if m.reasoning_content %} ({{ m.reasoning_content }}){% endif %}
{%- for call in m.tool_calls or [] %} calls {{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}{{ '\\n' }}
{%- endfor %}assistant:{% if thinking %} <think>\n{% endif %}`;

export const messages = [{ role: 'user', content: 'Tell me of a fox' }];
export const weather = {
  type: /** @type {const} */ ('function'),
  function: {
    name: 'get_weather',
    description: 'Weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
  },
};
export const KERNELS = /** @type {const} */ ({
  threads: 1,
  activation: 'f32',
  kvType: 'F32',
  contextLength: 512,
});

/** @param {TestContext} t */
export async function open(t) {
  const model = await Llama.load(TINY_TALES, KERNELS);
  t.after(() => model.dispose());
  return model;
}

const gguf = await openGguf(TINY_TALES);
const tokenizer = new Tokenizer(gguf.metadata);
gguf.close();

/**
 * Tokens of a text without a space in front, which the tokenizer would write: the longest first.
 * @param {string} text
 */
function tokensOf(text) {
  const all = Array.from({ length: tokenizer.size }, (_, id) => Buffer.from(tokenizer.bytes(id, true)));
  const tokens = [];
  for (let rest = Buffer.from(text); rest.length > 0; ) {
    const fit = all.map((bytes) => (bytes.equals(rest.subarray(0, bytes.length)) ? bytes.length : 0));
    const token = fit.indexOf(Math.max(...fit));
    tokens.push(token);
    rest = rest.subarray(fit[token]);
  }
  return tokens;
}

/**
 * A model that writes a certain text: its logits are those of the text's tokens.
 * @param {Llama} model @param {string} text
 */
export function scripted(model, text) {
  const script = tokensOf(text);
  const end = model.info.tokenizer.ends[0];
  const prompts = /** @type {string[]} */ ([]);
  const fake = Object.create(model, {
    info: { value: model.info },
    formatChat: { value: model.formatChat.bind(model) },
    chat: {
      value: async (/** @type {any} */ messages, /** @type {any} */ options) => {
        let at = 0;
        const { template, variables, tools, answerStart } = options;
        const format = JSON.parse(JSON.stringify({ template, variables, tools, answerStart }));
        prompts.push(await model.formatChat(messages, format));
        const logits = (/** @type {Float32Array} */ row) => {
          row.fill(Number.NEGATIVE_INFINITY);
          row[script[at++] ?? end] = 0;
        };
        return model.chat(messages, { ...options, logits });
      },
    },
  });
  return { model: /** @type {Llama} */ (fake), prompts };
}

/** @param {AsyncIterable<any>} stream @returns {Promise<any[]>} */
export async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** The message that chunks add up to. @param {any[]} chunks */
export function added(chunks) {
  /** @type {any} */
  const message = { content: '' };
  for (const { choices } of chunks)
    for (const { delta } of choices) {
      message.content += delta.content ?? '';
      if (delta.reasoning) message.reasoning = (message.reasoning ?? '') + delta.reasoning;
      for (const { index, ...call } of delta.tool_calls ?? []) {
        message.tool_calls ??= [];
        assert.equal(index, message.tool_calls.length);
        message.tool_calls.push(call);
      }
    }
  return message;
}
