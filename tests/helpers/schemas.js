/** Random JSON schemas with what structured output supports, and a check of values by Ajv. */
import { Ajv2020 } from 'ajv/dist/2020.js';

/** @import { Prng } from './prng.js' */

/** Checks of formats, by other means than a grammar. @type {Record<string, (text: string) => boolean>} */
const FORMATS = {
  date: (text) => isDate(text),
  time: (text) => isTime(text),
  'date-time': (text) => isDate(text.slice(0, 10)) && text[10] === 'T' && isTime(text.slice(11)),
  uuid: (text) => /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(text),
  ipv4: (text) =>
    text.split('.').length === 4 && text.split('.').every((n) => String(Number(n)) === n && Number(n) < 256),
  email: (text) =>
    URL.canParse(`http://${text}`) && new URL(`http://${text}`).username !== '' && !/[\s/:]/.test(text),
};

/** @param {string} text */
function isDate(text) {
  const date = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text);
}
/** @param {string} text */
const isTime = (text) => !Number.isNaN(Date.parse(`2000-01-01T${text}`)) && /(Z|[+-]\d\d:\d\d)$/.test(text);

/**
 * A function that tells what is wrong with a value; empty if nothing is.
 * @param {any} schema
 * @returns {(value: unknown) => string}
 */
export function validator(schema) {
  const ajv = new Ajv2020({ strict: false, ownProperties: true, formats: FORMATS });
  const validate = ajv.compile(schema);
  return (value) => (validate(value) ? '' : ajv.errorsText(validate.errors));
}

const NAMES = ['name', 'age', 'a "b"', 'größe', '日本', 'x\\y', 'tab\there', 'constructor', '', 'kind', '😀'];
const VALUES = [
  'red',
  'green',
  'a "quote"',
  'ä\n',
  '\u2028',
  '😀',
  1,
  -2.5,
  1e21,
  true,
  null,
  [1, 'x'],
  { a: [] },
];
const PATTERNS = [
  ...['^[a-z]{1,5}$', '^\\d+(\\.\\d{2})?$', '^(yes|no)$', '^[^a-m"\\\\]{1,4}$', '^.{0,6}$', '^\\w+-\\w+$'],
  ...[
    '^"\\\\$',
    '^(?:ä|ö|ü){2}x?$',
    '^(?:a|b(?:c|d){2,3})*$',
    '^\\u0041[\\x30-\\x35]\\/$',
    '^[+\\-.]?\\S\\s$',
    '^$',
  ],
];

/**
 * @param {Prng} prng
 * @param {number} [depth]  of the schemas inside
 * @returns {any}
 */
export function randomSchema(prng, depth = 3) {
  const defs = { tree: randomTree(prng) };
  return { ...oneSchema(prng, depth), $defs: defs };
}

/** @template T @param {Prng} prng @param {T[]} list */
const pick = (prng, list) => list[prng.int(0, list.length - 1)];

/** @param {Prng} prng */
const randomTree = (prng) => ({
  type: 'object',
  properties: {
    value: oneSchema(prng, 0),
    children: { type: 'array', items: { $ref: '#/$defs/tree' }, maxItems: 2 },
  },
  required: ['value'],
});

/** @param {Prng} prng @param {number} depth @returns {any} */
function oneSchema(prng, depth) {
  const makers = depth > 0 ? [...SIMPLE, ...NESTED, ...NESTED] : SIMPLE;
  return pick(prng, makers)(prng, depth);
}

/** @type {((prng: Prng, depth: number) => any)[]} */
const SIMPLE = [
  () => ({ type: 'null' }),
  () => ({ type: 'boolean', description: 'Whether it is so.' }),
  (prng) => ({ type: pick(prng, ['integer', 'number']), ...bounds(prng) }),
  (prng) => ({ type: 'integer', ...bounds(prng) }),
  () => ({ type: 'string' }),
  (prng) => {
    const minLength = prng.int(0, 4);
    return { type: 'string', minLength, maxLength: minLength + prng.int(0, 4) };
  },
  (prng) => ({ type: 'string', pattern: pick(prng, PATTERNS) }),
  (prng) => ({ type: 'string', format: pick(prng, Object.keys(FORMATS)) }),
  (prng) => ({ enum: [pick(prng, VALUES), pick(prng, VALUES), 'x'] }),
  (prng) => ({ const: pick(prng, VALUES) }),
  (prng) => ({ type: ['string', 'null', 'integer'], maxLength: prng.int(1, 5), minimum: prng.int(-9, 9) }),
];

/** @type {typeof SIMPLE} */
const NESTED = [
  (prng, depth) => {
    const names = NAMES.filter(() => prng.int(0, 2) === 0);
    return {
      type: 'object',
      properties: Object.fromEntries(names.map((name) => [name, oneSchema(prng, depth - 1)])),
      required: names.filter(() => prng.int(0, 1) === 0),
      ...(prng.int(0, 1) === 0 && { additionalProperties: false }),
    };
  },
  (prng, depth) => {
    const minItems = prng.int(0, 3);
    const items = oneSchema(prng, depth - 1);
    return {
      type: 'array',
      items,
      minItems,
      ...(prng.int(0, 2) > 0 && { maxItems: minItems + prng.int(0, 3) }),
    };
  },
  (prng, depth) => ({
    type: 'array',
    prefixItems: [oneSchema(prng, depth - 1), oneSchema(prng, 0)],
    ...(prng.int(0, 1) === 0 && { items: oneSchema(prng, 0), minItems: 2, maxItems: 3 }),
  }),
  (prng, depth) => ({ anyOf: [oneSchema(prng, depth - 1), oneSchema(prng, depth - 1)] }),
  (prng, depth) => ({
    oneOf: [
      {
        type: 'object',
        properties: { t: { const: 'a' }, v: oneSchema(prng, depth - 1) },
        required: ['t', 'v'],
      },
      { type: 'object', properties: { t: { enum: ['b', 'c'] } }, required: ['t'] },
      { type: 'integer' },
    ],
  }),
  (prng, depth) => ({ allOf: [oneSchema(prng, depth - 1)] }),
  (prng) => ({ type: 'object', additionalProperties: oneSchema(prng, 0), maxProperties: prng.int(0, 2) }),
  () => ({ $ref: '#/$defs/tree' }),
];

/** @param {Prng} prng */
function bounds(prng) {
  const at = prng.int(-1200, 1200);
  const width = prng.int(1, pick(prng, [2, 30, 4000]));
  const low = pick(prng, ['minimum', 'exclusiveMinimum', '']);
  const high = pick(prng, ['maximum', 'exclusiveMaximum', '']);
  return { ...(low && { [low]: at }), ...(high && { [high]: at + width + 1 }) };
}
