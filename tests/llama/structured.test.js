/**
 * Structured output: texts of models follow a schema or a grammar. Ajv checks the values, and
 * JSON.parse the texts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openGguf } from '../../js/gguf/index.js';
import { ArgumentError, createWorkerLlama, Llama } from '../../js/llama/index.js';
import { Mask, startMask } from '../../js/llama/structured/engine.js';
import { schemaGrammar } from '../../js/llama/structured/schema.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { randomSchema, validator } from '../helpers/schemas.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';
import { rejection } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */
/** @import { GenerateOptions } from '../../js/llama/index.js' */

const PROMPT = 'Once upon a time';
const PERSON = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    kind: { enum: ['fox', 'bear'] },
  },
  required: ['name', 'age', 'kind'],
};
const PERSON_FORMAT = /** @type {const} */ ({ type: 'json_schema', schema: PERSON });

/** @param {TestContext} t @param {string} [file] */
async function open(t, file = TINY_TALES) {
  const model = await Llama.load(file, { threads: 1, activation: 'f32' });
  t.after(() => model.dispose());
  return model;
}

/* ---- schemas ---- */

const DEEP = Boolean(process.env.FM_TEST_DEEP);
const SEED = Number(
  process.env.FM_STRUCTURED_SEED ?? (DEEP ? Math.floor(Math.random() * 2 ** 32) : 20261128),
);
const N_SCHEMAS = DEEP ? 10_000 : 60;
const WORDS = ['Once', 'upon', 'a fox', 'JSON:', '{"a":', 'the list is', '12', '"', 'Tom said', '['];

/** @type {[string, string, string | false][]} */
const MODELS = [
  ['tiny-tales', TINY_TALES, false],
  ['stories260K', dataPath('models/stories260K-Q8_0.gguf'), skipWithout('models/stories260K-Q8_0.gguf')],
];

for (const [name, file, skip] of MODELS) {
  test(`structured: ${name}, ${N_SCHEMAS} schemas of seed ${SEED}: what is finished validates`, {
    skip,
  }, async (t) => {
    const model = await open(t, file);
    const prng = new Prng(SEED);
    const finished = { end: 0, others: 0 };
    for (let i = 0; i < N_SCHEMAS; i++) {
      const schema = randomSchema(prng);
      const prompt = Array.from({ length: prng.int(1, 4) }, () => WORDS[prng.int(0, WORDS.length - 1)]).join(
        ' ',
      );
      const options = {
        seed: prng.int(0, 2 ** 31),
        temperature: [0, 0.8, 1.5, 20][prng.int(0, 3)],
        ...(prng.int(0, 1) === 0 && { topK: 0, topP: 1, minP: 0 }),
        ...(prng.int(0, 3) === 0 && { repeatPenalty: 1.3 }),
        maxTokens: 100,
      };
      const run = model.generate(prompt, { ...options, responseFormat: { type: 'json_schema', schema } });
      const text = await run.text();
      const { finishReason } = run.stats;
      const what = `schema ${i} ${JSON.stringify(schema)}, ${JSON.stringify({ prompt, ...options })}: ${text}`;
      if (finishReason !== 'end') {
        assert.ok(finishReason === 'length', `${finishReason}: ${what}`);
        finished.others += 1;
        continue;
      }
      finished.end += 1;
      assert.doesNotMatch(text, /\ufffd/, what);
      const wrong = validator(schema)(JSON.parse(text));
      assert.equal(wrong, '', what);
    }
    t.diagnostic(`${finished.end} texts ended, ${finished.others} were cut`);
    assert.ok(finished.end > finished.others);
  });
}

test('structured: a schema has every value that it describes, and no other one', async (t) => {
  const model = await open(t);
  const gguf = await openGguf(TINY_TALES);
  const tokenizer = new Tokenizer(gguf.metadata);
  gguf.close();
  const all = Array.from({ length: tokenizer.size }, (_, id) => Buffer.from(tokenizer.bytes(id)));
  const [end] = tokenizer.ends;
  /**
   * Whether the model may write a text, with whatever tokens.
   * @param {any} schema @param {string} text
   */
  const allows = async (schema, text) => {
    const bytes = Buffer.from(text);
    const start = tokenizer.encode(PROMPT).length;
    const run = model.generate(PROMPT, {
      responseFormat: { type: 'json_schema', schema },
      temperature: 0,
      logits: (row, tokens) => {
        const written = tokens.slice(start).reduce((sum, id) => sum + all[id].length, 0);
        const rest = bytes.subarray(written);
        for (const [id, own] of all.entries()) {
          const fits = own.length > 0 && own.equals(rest.subarray(0, own.length));
          row[id] = fits ? own.length : Number.NEGATIVE_INFINITY;
        }
        if (rest.length === 0) row[end] = 0;
      },
    });
    try {
      await run.text();
      return run.stats.finishReason === 'end';
    } catch (error) {
      assert.match(/** @type {Error} */ (error).message, /no token can come next/);
      return false;
    }
  };
  /** Schemas, texts of values in the form that is written, and texts of others. @type {[any, string[], string[]][]} */
  const cases = [
    [true, ['{"a":[1,"x"]}', 'null', '-1.5e3'], ['{a}', '01', '"\\x"', 'nul']],
    [
      { type: 'integer', minimum: -5, maximum: 17 },
      ['-5', '0', '9', '17'],
      ['-6', '18', '20', '-0', '1.0', '05'],
    ],
    [{ type: 'integer', exclusiveMinimum: 99, maximum: 1000 }, ['100', '999', '1000'], ['99', '1001', '10']],
    [{ type: 'number', minimum: 0, exclusiveMaximum: 2 }, ['0', '0.5', '1.999'], ['2', '2.0', '-0.5', '10']],
    [{ type: 'number', exclusiveMinimum: 0 }, ['0.5', '1', '12.25'], ['0', '0.0', '-1']],
    [
      { type: 'string', minLength: 2, maxLength: 3 },
      ['"ab"', '"a b"', '"\\"\\n"', '"äöü"'],
      ['"a"', '"abcd"'],
    ],
    [{ type: 'string', pattern: '^a+$' }, ['"a"', '"aaa"'], ['""', '"ab"', '"ba"']],
    [{ type: 'string', pattern: 'a|^b$' }, ['"b"', '"xax"'], ['"c"', '"bb"']],
    [{ type: 'string', pattern: '^[^x"]\\d{2,}$' }, ['"a12"', '"ß123"'], ['"x12"', '"a1"', '"\\"12"']],
    [{ type: 'string', format: 'date' }, ['"2024-02-28"', '"1999-12-31"'], ['"2024-13-01"', '"2024-04-31"']],
    [{ enum: ['a"', 1, null] }, ['"a\\""', '1', 'null'], ['"a"', '2']],
    [{ type: 'string', enum: ['a', 1] }, ['"a"'], ['1']],
    [{ type: ['null', 'boolean'] }, ['null', 'true', 'false'], ['0', '"true"']],
    [
      { type: 'array', items: { type: 'null' }, minItems: 1, maxItems: 2 },
      ['[null]', '[null, null]'],
      ['[]', '[null,null,null]'],
    ],
    [
      { prefixItems: [{ type: 'null' }], items: { type: 'boolean' } },
      ['[null]', '[null,true,false]'],
      ['[]', '[true]', '[null,null]'],
    ],
    [
      {
        type: 'object',
        properties: { a: { type: 'null' }, b: { type: 'null' }, c: { type: 'null' } },
        required: ['b'],
      },
      ['{"b":null}', '{"a":null,"b":null}', '{"b": null, "c": null}', '{"a":null,"b":null,"c":null}'],
      [
        '{}',
        '{"a":null}',
        '{"a":null,"c":null}',
        '{"b":null,"a":null}',
        '{"b":null,"d":null}',
        '{"b":null,}',
      ],
    ],
    [
      { type: 'object', additionalProperties: { type: 'null' }, maxProperties: 1 },
      ['{}', '{"x":null}'],
      ['{"x":1}', '{"x":null,"y":null}'],
    ],
    [
      { $ref: '#/$defs/t', $defs: { t: { type: 'array', items: { $ref: '#/$defs/t' } } } },
      ['[]', '[[],[[]]]'],
      ['[1]', '[[]'],
    ],
    [
      {
        $ref: '#/$defs/t',
        $defs: {
          t: {
            type: ['object', 'array'],
            ...{ required: ['x'], properties: { x: { $ref: '#/$defs/t' } } },
            items: { $ref: '#/$defs/t' },
          },
        },
      },
      ['[]', '{"x":[]}', '[{"x":[]}]'],
      ['{}', '{"x":1}'],
    ],
    [{ anyOf: [{ type: 'null' }, { const: { a: 1 } }] }, ['null', '{"a":1}'], ['{"a":2}']],
  ];
  for (const [schema, right, wrong] of cases) {
    const check = validator(schema);
    for (const text of right) {
      assert.equal(check(JSON.parse(text)), '', `${JSON.stringify(schema)} and ${text}`);
      assert.ok(await allows(schema, text), `${JSON.stringify(schema)} allows ${text}`);
    }
    for (const text of wrong)
      assert.ok(!(await allows(schema, text)), `${JSON.stringify(schema)} forbids ${text}`);
  }
});

/* ---- grammars ---- */

test('structured: texts follow a grammar; mistakes name their place', async (t) => {
  const model = await open(t);
  const generate = (/** @type {string} */ grammar, /** @type {GenerateOptions} */ more = {}) =>
    model.generate(PROMPT, { grammar, maxTokens: 40, ...more });
  const grammar = `# Two words.
root ::= word (" and " | ", ") word "." | "é" [^a-y"\\x00-\\x1f] "!"
word ::= "fox" | "bear" | [0-9]{2,3}
`;
  for (let seed = 0; seed < 30; seed++) {
    const run = generate(grammar, { seed, temperature: 5 });
    assert.match(await run.text(), /^((fox|bear|\d{2,3})( and |, )(fox|bear|\d{2,3})\.|é[^a-y"]!)$/u);
    assert.equal(run.stats.finishReason, 'end');
  }
  /** @type {[string, RegExp][]} */
  const mistakes = [
    ['root ::= x', /^grammar: line 1, column \d+: Rule "x" is not defined/],
    ['a ::= "b"', /^grammar: .*root/],
    ['root ::= "a', /^grammar: line 1, column \d+: Expect " in string literal/],
    ['root ::= TagDispatch(("a", x))\nx ::= "b"', /line 1: TagDispatch is not supported/],
    [
      'root ::= "a"\nb ::= [a-ü]',
      /^grammar: line 2: \[a-ü\] is not supported, as classes are limited to ASCII/,
    ],
    ['root ::= [\\u00e0-\\u00ff]', /limited to ASCII/],
    ['root ::= root', /no token can come next/],
  ];
  for (const [text, message] of mistakes) {
    const error = await rejection(generate(text).text());
    assert.ok(error instanceof ArgumentError, `${text}: ${error}`);
    assert.match(error.message, message);
  }
  assert.equal(await generate('root ::= "ok"').text(), 'ok');
});

test('structured: any JSON object', async (t) => {
  const model = await open(t);
  let ended = 0;
  for (let seed = 0; seed < 40; seed++) {
    const options = { seed, temperature: 3, topK: 0, maxTokens: 120 };
    const run = model.generate(PROMPT, { ...options, responseFormat: { type: 'json_object' } });
    const text = await run.text();
    assert.match(text, /^\{/);
    if (run.stats.finishReason !== 'end') continue;
    ended += 1;
    const value = JSON.parse(text);
    assert.ok(typeof value === 'object' && value !== null && !Array.isArray(value));
  }
  assert.ok(ended > 0);
});

/* ---- together with other options ---- */

test('structured: options are checked', async (t) => {
  const model = await open(t);
  const refused = (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.throws(
      () => model.generate(PROMPT, options),
      (error) => error instanceof ArgumentError && message.test(error.message),
    );
  refused(
    { responseFormat: { type: 'xml' } },
    /responseFormat must be .* got type "xml" with schema undefined/,
  );
  refused({ responseFormat: { type: 'json_schema' } }, /got type "json_schema" with schema undefined/);
  refused({ responseFormat: null }, /responseFormat must be/);
  refused({ grammar: 1 }, /grammar must be a text, got 1/);
  refused({ grammar: 'a', responseFormat: { type: 'json_object' } }, /cannot be combined/);
  refused({ grammar: 'a', ignoreEnd: true }, /grammar and ignoreEnd cannot be combined/);
});

test("structured: after the user's logits; logprobs, penalties and stop work; cut texts are unfinished", async (t) => {
  const model = await open(t);
  const banned = model.tokenize('fox', { bos: false });
  const run = model.generate(PROMPT, {
    grammar: 'root ::= "fox" | "bear"',
    temperature: 0,
    logprobs: 2,
    repeatPenalty: 1.5,
    logits: (row) => {
      for (const id of banned) row[id] = Number.NEGATIVE_INFINITY;
      row[model.tokenize('f', { bos: false })[0]] = Number.NEGATIVE_INFINITY;
    },
  });
  assert.equal(await run.text(), 'bear');
  assert.equal(run.logprobs.length, run.tokens.length);
  const none = model.generate(PROMPT, {
    grammar: 'root ::= "fox"',
    logits: (row) => {
      for (let id = 0; id < row.length; id++) if (id !== 300) row[id] = Number.NEGATIVE_INFINITY;
    },
  });
  assert.match((await rejection(none.text())).message, /no token can come next: .* rule out all \d+/);
  const cut = model.generate(PROMPT, { responseFormat: PERSON_FORMAT, maxTokens: 3, seed: 2 });
  assert.match(await cut.text(), /^\{/);
  assert.equal(cut.stats.finishReason, 'length');
  const stopped = model.generate(PROMPT, {
    grammar: 'root ::= "a"+ "b" "c"+',
    stop: 'bc',
    seed: 3,
    temperature: 2,
    topK: 0,
  });
  assert.match(await stopped.text(), /^a+$/);
  assert.equal(stopped.stats.finishReason, 'stop');
  const [one, two] = [0, 0].map(() => model.generate(PROMPT, { responseFormat: PERSON_FORMAT, seed: 9 }));
  const text = await one.text();
  assert.equal(await two.text(), text, 'the same seed gives the same text');
  const streamed = [];
  for await (const piece of model.generate(PROMPT, { responseFormat: PERSON_FORMAT, seed: 9 }))
    streamed.push(piece);
  assert.equal(streamed.join(''), text);
});

test('structured: a chat, with the start of its answer', async (t) => {
  const model = await open(t);
  const messages = [{ role: 'user', content: 'A fox' }];
  const run = await model.chat(messages, {
    template: 'chatml',
    answerStart: '{"name": ',
    grammar: 'root ::= "\\"" [a-z]+ "\\"" "}"',
    maxTokens: 60,
    seed: 8,
  });
  const text = await run.text();
  if (run.stats.finishReason === 'end') assert.match(text, /^"[a-z]+"\}$/);
  else assert.match(text, /^"[a-z]+$/);
});

/* ---- memory and ends ---- */

test('structured: generations that end, are left, cancelled or aborted free their memory', async (t) => {
  /** Memories of all instances that are made. @type {WebAssembly.Memory[]} */
  const memories = [];
  const { instantiate } = WebAssembly;
  t.mock.method(WebAssembly, 'instantiate', async (/** @type {any[]} */ ...args) => {
    const made = await /** @type {any} */ (instantiate)(...args);
    memories.push(
      ...Object.values((made.instance ?? made).exports).filter((one) => one instanceof WebAssembly.Memory),
    );
    return made;
  });
  const { apply } = Mask.prototype;
  /** @type {Set<Mask>} */
  const seen = new Set();
  t.mock.method(Mask.prototype, 'apply', function apply_(/** @type {any} */ ...args) {
    // @ts-expect-error: the mask
    seen.add(this);
    // @ts-expect-error: the same
    return apply.apply(this, args);
  });
  const model = await open(t);
  const format = { responseFormat: PERSON_FORMAT, temperature: 1 };
  const kinds = [
    async () => model.generate(PROMPT, format).text(),
    async () => {
      for await (const piece of model.generate(PROMPT, format)) if (piece) break;
    },
    async () => {
      const run = model.generate(PROMPT, format);
      await run.next();
      run.cancel();
    },
    async () => {
      const run = model.generate(PROMPT, format);
      await run.next();
      run.stop();
      assert.equal(run.stats.finishReason, 'stopped');
    },
    async () => {
      const controller = new AbortController();
      const run = model.generate(PROMPT, { ...format, signal: controller.signal });
      await run.next();
      controller.abort();
      await rejection(run.text());
    },
  ];
  const bytes = () => memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);
  for (const kind of kinds) await kind();
  const before = bytes();
  const { length } = memories;
  for (let i = 0; i < 200; i++) await kinds[i % kinds.length]();
  assert.ok(seen.size > 150 && before > 0);
  for (const mask of seen) {
    const row = new Float32Array(model.info.nVocab);
    apply.call(mask, row, []);
    assert.ok(
      row.every((value) => value === 0),
      'a mask that is freed rules nothing out',
    );
  }
  assert.equal(bytes(), before, 'memory has not grown');
  assert.equal(memories.length, length, 'the schema was read once, and there is one engine');
});

test('structured: a model in a worker writes the same texts and has the same errors', async (t) => {
  const options = /** @type {const} */ ({ threads: 1, activation: 'f32' });
  const here = await open(t);
  const there = await createWorkerLlama(TINY_TALES, options);
  t.after(() => there.dispose());
  for (const form of [{ responseFormat: PERSON_FORMAT }, { grammar: 'root ::= ("fox" | "bear") "!"' }]) {
    const [one, other] = [here, there].map((model) => model.generate(PROMPT, { ...form, seed: 5 }));
    assert.equal(await other.text(), await one.text());
    assert.equal(other.stats.finishReason, 'end');
  }
  const bad = { type: /** @type {const} */ ('json_schema'), schema: { not: {} } };
  const error = await rejection(there.generate(PROMPT, { responseFormat: bad }).text());
  assert.ok(error instanceof ArgumentError && /"not" is not supported/.test(error.message), String(error));
  const answer = await there.chat([{ role: 'user', content: 'a' }], {
    template: 'chatml',
    responseFormat: PERSON_FORMAT,
    seed: 1,
  });
  assert.equal(validator(PERSON)(JSON.parse(await answer.text())), '');
});

test('structured: a large vocabulary limits what a schema may count', {
  skip: skipWithout('vocab/ggml-vocab-qwen2.gguf'),
}, async () => {
  const gguf = await openGguf(dataPath('vocab/ggml-vocab-qwen2.gguf'));
  const tokenizer = new Tokenizer(gguf.metadata);
  gguf.close();
  const grammar = { ...schemaGrammar({ type: 'string', maxLength: 1000 }, 's'), name: 's' };
  await assert.rejects(
    startMask(tokenizer, grammar),
    (error) =>
      error instanceof ArgumentError &&
      /^s: .* count 1000 characters; with a vocabulary of 151936 tokens they may count 441$/.test(
        error.message,
      ),
  );
});
