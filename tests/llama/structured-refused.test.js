/** Schemas that no grammar is made for: errors that name the keyword and its place. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, Llama } from '../../js/llama/index.js';
import { schemaGrammar } from '../../js/llama/structured/schema.js';
import { TINY_TALES } from '../helpers/llama.js';
import { validator } from '../helpers/schemas.js';
import { rejection } from '../helpers/workers.js';

const PROMPT = 'Once upon a time';
const PERSON = { type: 'object', properties: { name: { type: 'string', maxLength: 8 } }, required: ['name'] };

test('structured: a keyword that is not supported is an error that names it and its place', async (t) => {
  const model = await Llama.load(TINY_TALES, { threads: 1, activation: 'f32' });
  t.after(() => model.dispose());
  /** @type {[any, RegExp][]} */
  const cases = [
    [
      { properties: { a: { items: { multipleOf: 3 } } } },
      /^responseFormat\.schema\.properties\.a\.items: the keyword "multipleOf"/,
    ],
    [{ not: {} }, /the keyword "not" is not supported/],
    [{ uniqueItems: true }, /"uniqueItems"/],
    [{ patternProperties: {} }, /"patternProperties"/],
    [{ type: 'string', format: 'uri' }, /\.format: "uri" is none of the supported formats: date, time/],
    [{ type: 'string', pattern: '(?=a)b' }, /\.pattern: in ".*", "\(\?" at 0 is not supported/],
    [{ type: 'string', pattern: '(a' }, /"\(" at 0 is not closed/],
    [{ type: 'string', pattern: 'a$b' }, /"\$" at 1 is not at an end/],
    [{ type: 'string', pattern: '\\bx' }, /"\\b" at 0 is not supported/],
    [{ type: 'string', pattern: 'a', maxLength: 3 }, /pattern with minLength or maxLength is not supported/],
    [{ allOf: [{}, {}] }, /\.allOf is supported with one schema only, got 2/],
    [{ oneOf: [{ type: 'string' }, { maxLength: 3 }] }, /\.oneOf is supported where .* use anyOf/],
    [{ anyOf: [{}], type: 'object' }, /"type" beside "anyOf" is not supported/],
    [{ $ref: '#/nowhere' }, /there is no "#\/nowhere" in the schema/],
    [{ $ref: 'https://example.org/x' }, /there is no "https/],
    [{ $ref: '#' }, /refers to itself/],
    [{ properties: { next: { $ref: '#' } }, required: ['next'] }, /no value of "#" ends, as each must/],
    [{ type: 'array', items: { $ref: '#' }, minItems: 1 }, /no value of "#" ends/],
    [{ type: 'array', prefixItems: [{}, { $ref: '#' }] }, /no value of "#" ends/],
    [{ type: 'object', minProperties: 1, additionalProperties: { $ref: '#' } }, /no value of "#" ends/],
    [
      {
        $defs: {
          a: {
            anyOf: [{ properties: { b: { $ref: '#/$defs/b' } }, required: ['b'] }, { $ref: '#/$defs/b' }],
          },
          b: { type: ['object'], properties: { a: { $ref: '#/$defs/a' } }, required: ['a'] },
        },
        properties: { optional: { $ref: '#/$defs/a' } },
      },
      /no value of "#\/\$defs\/a" ends/,
    ],
    [{ type: 'integer', minimum: 5, maximum: 3 }, /the least integer is 5, and the largest one is 3/],
    [
      { type: 'number', minimum: 0.5 },
      /\.minimum of a number is supported from -1e9 to 1e9 and without a fraction, got 0\.5/,
    ],
    [{ type: 'array', minItems: 2, maxItems: 1 }, /minItems is 2, and maxItems is 1/],
    [{ minimum: 1, properties: {} }, /a type is missing, as there are keywords for number and object/],
    [{ type: 'thing' }, /\.type must be among null, boolean.*, got "thing"/],
    [{ type: 'object', properties: {}, required: ['x'], additionalProperties: false }, /\.required has "x"/],
    [
      { type: 'object', properties: { a: {} }, minProperties: 1 },
      /minProperties and maxProperties are supported/,
    ],
    [{ enum: [] }, /no value of enum/],
    [{ type: 'string', maxLength: -1 }, /\.maxLength must be an integer of 0 or more, got -1/],
    [{ properties: { a: false }, required: ['a'] }, /\.properties\.a: no value can satisfy the schema false/],
    [{ properties: { a: 5 } }, /\.properties\.a must be a JSON schema, got 5/],
    [{ anyOf: [false] }, /\.anyOf must be a list of schemas/],
    [{ enum: [Number.NaN] }, /NaN is no JSON value/],
    [{ enum: [{ a: 1n }] }, /is no JSON value/],
    [{ oneOf: [{ type: 'object' }, { type: 'object', required: 'a' }] }, /\.oneOf is supported where/],
    // Repetitions of repetitions are counted as often as they are repeated.
    [{ type: 'string', pattern: '^(?:(?:a{30}){30}){30}$' }, /counts more than 20000 .*, got 27000/],
    [{ type: 'string', maxLength: 1e9 }, /counts more than 20000 characters and items, got 1000000000/],
  ];
  for (const [schema, message] of cases) {
    const error = await rejection(
      model.generate(PROMPT, { responseFormat: { type: 'json_schema', schema } }).text(),
    );
    assert.ok(error instanceof ArgumentError, `${message}: ${error}`);
    assert.match(error.message, message);
    assert.match(error.message, /^responseFormat\.schema/);
  }
  let deep = /** @type {any} */ ({});
  for (let i = 0; i < 300; i++) deep = { items: deep };
  assert.throws(() => schemaGrammar(deep, 'it'), /^ArgumentError: it: a schema may have 20000 parts/);
  const text = await model
    .generate(PROMPT, { responseFormat: { type: 'json_schema', schema: PERSON }, seed: 1 })
    .text();
  assert.equal(validator(PERSON)(JSON.parse(text)), '', 'the model can be used after errors');
});
