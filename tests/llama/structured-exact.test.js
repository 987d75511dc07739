/**
 * Grammars of schemas, and grammars of users, against their definitions: texts that look alike are
 * accepted exactly where they should be. The engine reads some grammars wrongly, so what is handed to it
 * avoids those; these tests would show more of them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEngine } from '../../dist/grammar-engine.js';
import { separated } from '../../js/llama/structured/ebnf.js';
import { schemaGrammar } from '../../js/llama/structured/schema.js';
import { Prng } from '../helpers/prng.js';
import { validator } from '../helpers/schemas.js';

const SEED = Number(
  process.env.FM_STRUCTURED_SEED ??
    (process.env.FM_TEST_DEEP ? Math.floor(Math.random() * 2 ** 32) : 20261128),
);
const ROUNDS = process.env.FM_TEST_DEEP ? 200 : 8;
const prng = new Prng(SEED);
/** @template T @param {ArrayLike<T>} list */
const pick = (list) => list[prng.int(0, list.length - 1)];

/** Letters of which many texts share beginnings, ends and bytes. */
const ALPHABETS = ['ab', 'abc', 'éüöa', '日本語\u3000、\u2028\u2000b', '"\\a\n', '😀😁é'].map((text) => [
  ...text,
]);

/** Texts, and texts that are made from their beginnings and ends. @param {string[]} letters */
function alike(letters) {
  const one = () => Array.from({ length: prng.int(0, 4) }, () => pick(letters)).join('');
  const words = [...new Set(Array.from({ length: prng.int(2, 10) }, one))];
  const mixed = Array.from({ length: 40 }, () => {
    const [begin, end] = [[...pick(words)], [...pick(words)]];
    return [...begin.slice(0, prng.int(0, begin.length)), ...end.slice(prng.int(0, end.length))].join('');
  });
  return { words, probes: [...words, ...mixed, one(), one()] };
}

/** A function that tells whether a grammar has a text. @param {string} grammar */
async function acceptor(grammar) {
  const wasm = await createEngine(() => {});
  const [tokens, ends] = [new wasm.VectorString(), new wasm.VectorInt()];
  for (let byte = 0; byte < 256; byte++) tokens.push_back(Uint8Array.of(byte));
  tokens.push_back('');
  ends.push_back(256);
  const info = new wasm.TokenizerInfo(tokens, 'RAW', 257, ends, false);
  const compiled = new wasm.GrammarCompiler(info, 1, false).CompileGrammar(
    wasm.Grammar.FromEBNF(grammar, 'root'),
  );
  return (/** @type {string} */ text) => {
    const matcher = new wasm.GrammarMatcher(compiled, undefined, false, -1);
    const fits =
      Buffer.from(text).every((byte) => matcher.AcceptToken(byte, false)) && matcher.AcceptToken(256, false);
    matcher.delete();
    return fits;
  };
}

/**
 * @param {any} schema
 * @param {string[]} texts
 * @param {(text: string) => boolean} [isForm]  whether the text has the form that is written
 */
async function check(schema, texts, isForm = () => true) {
  const accepts = await acceptor(schemaGrammar(schema, 'schema').grammar);
  const validate = validator(schema);
  for (const text of texts) {
    const isValid = validate(JSON.parse(text)) === '';
    const isAccepted = accepts(text);
    const wrong = isAccepted ? !isValid : isValid && isForm(text);
    assert.ok(
      !wrong,
      `${JSON.stringify(schema)}: ${text} is ${isAccepted ? '' : 'not '}accepted; seed ${SEED}`,
    );
  }
}

const PLAIN = /^-?(0|[1-9]\d*)(\.\d+)?$/;

test(`structured: integers and numbers between bounds, seed ${SEED}`, async () => {
  for (let i = 0; i < 3 * ROUNDS; i++) {
    const from = prng.int(-1500, 1500);
    const to = from + prng.int(0, pick([3, 40, 3000]));
    const near = Array.from({ length: 60 }, () => prng.int(from - 20, to + 20));
    const edges = [from - 1, from, from + 1, to - 1, to, to + 1, 10 * to, 0].map(String);
    await check({ type: 'integer', minimum: from, maximum: to }, [...edges, ...near.map(String)]);
    const low = pick(['minimum', 'exclusiveMinimum']);
    const high = pick(['maximum', 'exclusiveMaximum']);
    const parts = [...near, from, to].map((value) => `${value + pick([0, 0.5, 0.25, -0.125])}`);
    await check({ type: 'number', [low]: from, [high]: to + 1 }, [...edges, ...parts], (text) =>
      PLAIN.test(text),
    );
  }
});

test(`structured: texts that look alike in enum, pattern and properties, seed ${SEED}`, async () => {
  for (let i = 0; i < ROUNDS; i++)
    for (const letters of ALPHABETS) {
      const { words, probes } = alike(letters);
      const texts = probes.map((word) => JSON.stringify(word));
      await check({ enum: words }, texts);
      const spelled = (/** @type {string} */ word) =>
        word.replace(/[\\"]/g, '\\$&').replaceAll('\\"', '"').replaceAll('\n', '\\n');
      await check({ type: 'string', pattern: `^(${words.map(spelled).join('|')})$` }, texts);
      const [first, second] = [words.slice(0, 3), words.slice(3)].map((some) =>
        some.map((word) => spelled(word) || 'x'),
      );
      const pattern = `^(?:${first.join('|')})+(?:${second.join('|') || 'x'})?$`;
      await check({ type: 'string', pattern }, texts);
      // Ajv does not see a missing property whose name is empty.
      const names = words.filter((word) => word !== '').slice(0, 5);
      const properties = Object.fromEntries(
        names.map((name) => [name, pick([{ type: 'null' }, { enum: [1, 2] }])]),
      );
      const required = names.filter(() => prng.int(0, 2) === 0);
      const objects = Array.from({ length: 60 }, () => {
        const some = [...names, ...probes.slice(-3)].filter(
          (name, at, all) => all.indexOf(name) === at && prng.int(0, 1),
        );
        return `{${some.map((name) => `${JSON.stringify(name)}:${pick(['null', '1', '2'])}`).join(',')}}`;
      });
      const schema = { type: 'object', properties, required, additionalProperties: false };
      const order = Object.keys(properties);
      await check(schema, objects, (text) => {
        const places = Object.keys(JSON.parse(text)).map((name) => order.indexOf(name));
        return places.every((place, at) => at === 0 || place > places[at - 1]);
      });
    }
});

test(`structured: alternatives in grammars of users, seed ${SEED}`, async () => {
  for (let i = 0; i < ROUNDS; i++)
    for (const letters of ALPHABETS) {
      const { words, probes } = alike(letters);
      const literals = words.map((word) => JSON.stringify(word));
      const rules = literals.map((text, at) => `w${at} ::= ${text} # a word`);
      const grammars = [
        `root ::= ${literals.join(' | ')}`,
        `root ::= (${literals.slice(0, 2).join('\n| ')}) | (${literals.slice(2).join(' | ') || literals[0]})`,
        `root ::= ${rules.map((_, at) => `w${at}`).join(' | ')}\n${rules.join('\n')}`,
      ];
      for (const grammar of grammars) {
        const accepts = await acceptor(separated(grammar));
        for (const text of probes)
          assert.equal(accepts(text), words.includes(text), `${grammar}: ${text}; seed ${SEED}`);
      }
    }
});

/** A random part of a grammar, and the same as a regular expression. @param {number} depth */
function part(depth) {
  const kind = prng.int(0, depth > 0 ? 3 : 2);
  const letter = pick('abc-* ');
  if (kind === 0) return { text: JSON.stringify(letter), pattern: `\\x${letter.charCodeAt(0).toString(16)}` };
  if (kind === 3) return alternatives(depth - 1);
  const text = pick(kind === 1 ? ['[a-b]', '[^a]', '[c]', '[a-]', '[* ]'] : ['"ab"', '"b *"', '"-a"']);
  return { text, pattern: kind === 1 ? text : JSON.parse(text).replace('*', '\\*') };
}

/** @param {number} depth @returns {{ text: string, pattern: string }} */
function alternatives(depth) {
  const all = Array.from({ length: prng.int(1, 3) }, () =>
    Array.from({ length: prng.int(1, 3) }, () => {
      const { text, pattern } = part(depth);
      const times = pick(['', '', '*', '+', '?', '{1,2}']);
      return { text: `${text}${times}`, pattern: `(?:${pattern})${times}` };
    }),
  );
  const join = (/** @type {'text' | 'pattern'} */ key, /** @type {string} */ space) =>
    all.map((parts) => parts.map((one) => one[key]).join(space));
  return { text: `(${join('text', ' ').join(' | ')})`, pattern: `(?:${join('pattern', '').join('|')})` };
}

test(`structured: loops in grammars of users, seed ${SEED}`, async () => {
  let nAccepted = 0;
  for (let i = 0; i < 12 * ROUNDS; i++) {
    const { text, pattern } = alternatives(2);
    const times = pick(['*', '+']);
    const grammar = prng.int(0, 1)
      ? `root ::= "x" ${text}${times} "y"`
      : `root ::= "x" loop${times} "y"\nloop ::= ${text.slice(1, -1)}`;
    const accepts = await acceptor(separated(grammar));
    const exact = new RegExp(`^x${pattern}${times}y$`);
    for (let n = 0; n < 80; n++) {
      const probe = `x${Array.from({ length: prng.int(0, 5) }, () => pick('aabbc-* ')).join('')}y`;
      assert.equal(accepts(probe), exact.test(probe), `${grammar}: ${probe}; seed ${SEED}`);
      nAccepted += Number(exact.test(probe));
    }
  }
  assert.ok(nAccepted > 100, `only ${nAccepted} texts were accepted`);
});

test('structured: a loop within itself in grammars of users', async () => {
  const accepts = await acceptor(separated('root ::= "x" t* "y"\nt ::= [a-c] | "(" t* ")" | "<" t+ ">"'));
  for (const text of ['xy', 'xabcy', 'x()y', 'x((a)b<c>)y', 'x<()>y']) assert.ok(accepts(text), text);
  for (const text of ['x(y', 'x)y', 'x<>y', 'x(<a)>y', 'xdy']) assert.ok(!accepts(text), text);
});
