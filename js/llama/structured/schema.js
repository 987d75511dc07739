/* JSON schemas as grammars. A grammar allows only texts that the schema allows. Not all of them: the
 * order of properties is fixed, no space is left at will, and where properties are named there are no
 * others. A constraint without a grammar is refused by name.
 *
 * The engine can read schemas itself, but ignores some constraints without an error. */

import { ArgumentError, show } from '../../errors.js';
import { areDisjoint, TYPES, typesOf } from './disjoint.js';
import { FORMATS } from './formats.js';
import { ALL, characters, literal, times } from './notation.js';
import { ANY_INTEGER, ANY_NUMBER, integers, LARGEST_BOUND, numbers } from './numbers.js';
import { PatternError, patternGrammar } from './pattern.js';
import { endless, follow } from './references.js';

/** @typedef {Record<string, any>} Schema */
/** @typedef {{ path: string, refs: readonly string[], depth: number }} Place */

/** Keywords that constrain nothing. */
const NOTES = new Set([
  ...['title', 'description', 'default', 'examples', 'deprecated', 'readOnly', 'writeOnly'],
  ...['$comment', '$schema', '$id', '$defs', 'definitions', '$vocabulary', 'example'],
]);

/** Keywords for values of one type. @type {Record<string, string[]>} */
const KEYWORDS = {
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  object: ['properties', 'required', 'additionalProperties', 'minProperties', 'maxProperties'],
};
const ALONE = ['$ref', 'enum', 'const', 'anyOf', 'oneOf', 'allOf'];
const KNOWN = new Set([...NOTES, ...Object.values(KEYWORDS).flat(), ...ALONE, 'type']);

/** Limits of a schema, so that a hostile one ends with an error. */
const MOST_PARTS = 20_000;
const MOST_DEPTH = 200;
const MOST_COPIES = 20_000;

const COMMA = '"," " "?';
const COLON = '":" " "?';

/**
 * A grammar, and how many characters its repetitions count, which is what makes preparing it slow.
 * @typedef {{ grammar: string, copies: number }} Prepared
 */

/**
 * The grammar of a schema.
 * @param {unknown} schema
 * @param {string} name  of the schema in messages
 * @param {string} [prefix]  of the names of rules, where the grammar becomes a part of another one
 * @returns {Prepared}
 * @throws {ArgumentError} a keyword is not supported, or its values allow nothing
 */
export function schemaGrammar(schema, name, prefix = '') {
  const rules = new Rules(schema, name, prefix);
  return rules.finish(rules.convert(schema, { path: name, refs: [], depth: 0 }));
}

/** The grammar of any JSON object. @returns {Prepared} */
export const objectGrammar = () => schemaGrammar({ type: 'object' }, 'responseFormat');

/** The rules of a grammar under construction. */
class Rules {
  #root;
  #name;
  #prefix;
  /** @type {string[]} */
  #bodies = [];
  /** Names of rules, by what they describe. @type {Map<string, string>} */
  #names = new Map();
  /** References in use. @type {Set<string>} */
  #references = new Set();
  #nParts = 0;
  #copies = 0;

  /** @param {unknown} root @param {string} name @param {string} prefix */
  constructor(root, name, prefix) {
    this.#root = root;
    this.#name = name;
    this.#prefix = prefix;
  }

  /** @param {string} body @returns {Prepared} */
  finish(body) {
    const loop = endless(this.#root, this.#references);
    if (loop !== undefined)
      throw new ArgumentError(
        `${this.#name}: no value of ${show(loop)} ends, as each must contain another one; make a property optional, or an array possibly empty`,
      );
    const lines = [`${this.#prefix}root ::= ${body}`, ...this.#bodies, `${this.#prefix}z ::= "" | "\\x01"`];
    return { grammar: lines.join('\n'), copies: this.#copies };
  }

  /**
   * The name of a rule, which is made if there is none for the key.
   * @param {string} key
   * @param {() => string} makeBody
   */
  #rule(key, makeBody) {
    const known = this.#names.get(key);
    if (known) return known;
    const name = `${this.#prefix}r${this.#names.size}`;
    this.#names.set(key, name);
    const body = makeBody();
    this.#bodies.push(`${name} ::= ${body}`);
    return name;
  }

  /**
   * One of several parts. Each gets a rule of its own, with a rule at its start that is empty or has a
   * character that no token has, as the engine confuses texts that stand side by side in one rule.
   * @param {string[]} parts
   */
  #choice(parts) {
    if (parts.length === 1) return parts[0];
    return `(${parts.map((part) => this.#part(`${this.#prefix}z ${part}`)).join(' | ')})`;
  }

  /** A new rule. @param {string} body */
  #newRule(body) {
    return this.#rule(`#${this.#names.size}`, () => body);
  }

  /** @param {number} copies @param {string} path */
  #count(copies, path) {
    this.#copies += copies;
    if (this.#copies > MOST_COPIES)
      throw new ArgumentError(
        `${path}: the schema counts more than ${MOST_COPIES} characters and items, got ${this.#copies}`,
      );
  }

  /**
   * @param {unknown} schema
   * @param {Place} place
   * @returns {string}
   */
  convert(schema, place) {
    const { path, depth } = place;
    if (schema === true) return this.#any();
    if (schema === false) throw new ArgumentError(`${path}: no value can satisfy the schema false`);
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      throw new ArgumentError(`${path} must be a JSON schema, got ${show(schema)}`);
    if (++this.#nParts > MOST_PARTS || depth > MOST_DEPTH)
      throw new ArgumentError(
        `${this.#name}: a schema may have ${MOST_PARTS} parts, nested ${MOST_DEPTH} deep, and this one has more`,
      );
    const given = /** @type {Schema} */ (schema);
    const keys = Object.keys(given).filter((key) => given[key] !== undefined && !NOTES.has(key));
    for (const key of keys)
      if (!KNOWN.has(key)) throw new ArgumentError(`${path}: the keyword ${show(key)} is not supported`);
    const alone = ALONE.filter((key) => keys.includes(key));
    if (alone.length === 0) return this.#typed(given, keys, place);
    const [key] = alone;
    const beside = keys.filter((one) => one !== key && !(one === 'type' && /enum|const/.test(key)));
    if (beside.length > 0)
      throw new ArgumentError(`${path}: ${show(beside[0])} beside ${show(key)} is not supported`);
    if (key === 'enum' || key === 'const') return this.#values(given, path);
    if (key === '$ref') return this.#reference(given.$ref, place);
    const all = given[key];
    const list = Array.isArray(all) && key !== 'allOf' ? all.filter((one) => one !== false) : all;
    if (!Array.isArray(list) || list.length === 0)
      throw new ArgumentError(`${path}.${key} must be a list of schemas, got ${show(list)}`);
    if (key === 'allOf' && list.length > 1)
      throw new ArgumentError(`${path}.allOf is supported with one schema only, got ${list.length}`);
    if (key === 'oneOf') this.#checkDisjoint(list, path);
    const inside = (/** @type {number} */ i) => ({
      ...place,
      path: `${path}.${key}[${i}]`,
      depth: depth + 1,
    });
    return this.#choice(list.map((one, i) => this.convert(one, inside(i))));
  }

  /** @param {Schema} given @param {string} path */
  #values(given, path) {
    const isConst = given.const !== undefined;
    const list = isConst ? [given.const] : given.enum;
    if (!Array.isArray(list)) throw new ArgumentError(`${path}.enum must be a list, got ${show(list)}`);
    const types = given.type === undefined ? TYPES : [given.type].flat();
    const fit = list.filter((value) => typesOf(value).some((type) => types.includes(type)));
    if (fit.length === 0)
      throw new ArgumentError(
        `${path}: no value of ${isConst ? 'const' : 'enum'} is of the type ${show(given.type)}`,
      );
    for (const value of fit)
      if (!isJson(value)) throw new ArgumentError(`${path}: ${show(value)} is no JSON value`);
    return this.#choice([...new Set(fit.map((value) => literal(JSON.stringify(value))))]);
  }

  /** @param {unknown} address @param {Place} place */
  #reference(address, { path, refs, depth }) {
    const text = String(address);
    const { steps, target } = follow(this.#root, text);
    if (target === undefined) throw new ArgumentError(`${path}: there is no ${show(address)} in the schema`);
    if (refs.includes(text)) throw new ArgumentError(`${path}: ${show(address)} refers to itself`);
    const inside = {
      path: `${this.#name}.${steps.join('.')}`,
      refs: [...refs, text],
      depth: depth + 1,
    };
    this.#references.add(text);
    return this.#rule(`ref ${text}`, () => this.convert(target, inside));
  }

  /**
   * Refuses alternatives of which more than one may hold, as a grammar cannot tell.
   * @param {any[]} list
   * @param {string} path
   */
  #checkDisjoint(list, path) {
    for (const [i, one] of list.entries())
      for (const other of list.slice(0, i))
        if (!areDisjoint(one, other))
          throw new ArgumentError(
            `${path}.oneOf is supported where the alternatives differ in their types or in a required constant; use anyOf`,
          );
  }

  /**
   * @param {Schema} given
   * @param {string[]} keys
   * @param {Place} place
   */
  #typed(given, keys, place) {
    const { path } = place;
    const { type } = given;
    const about = Object.keys(KEYWORDS).filter((kind) => KEYWORDS[kind].some((key) => keys.includes(key)));
    if (type === undefined && about.length === 0) return this.#any();
    if (type === undefined && about.length > 1)
      throw new ArgumentError(`${path}: a type is missing, as there are keywords for ${about.join(' and ')}`);
    const types = type === undefined ? about : [type].flat();
    if (types.length === 0 || !types.every((one) => TYPES.includes(one)))
      throw new ArgumentError(`${path}.type must be among ${TYPES.join(', ')}, got ${show(type)}`);
    return this.#choice([...new Set(types)].map((one) => this.#ofType(one, given, place)));
  }

  /** @param {string} type @param {Schema} given @param {Place} place @returns {string} */
  #ofType(type, given, place) {
    if (type === 'null') return '"null"';
    if (type === 'boolean') return '("true" | "false")';
    if (type === 'string') return this.#string(given, place.path);
    if (type === 'array') return this.#array(given, place);
    if (type === 'object') return this.#object(given, place);
    return this.#number(type === 'integer', given, place.path);
  }

  /** @returns {string} */
  #any() {
    return this.#rule('any', () =>
      this.#choice([
        ...[this.#plainString(), this.#rule('number', () => ANY_NUMBER), '"true"', '"false"', '"null"'],
        ...[this.#list(this.#any(), 0, Number.POSITIVE_INFINITY), this.#map(this.#any())],
      ]),
    );
  }

  #plainString() {
    return this.#rule('string', () => `"\\"" (${this.#character()})* "\\""`);
  }

  #character() {
    return characters(ALL);
  }

  /** @param {Schema} given @param {string} path */
  #string(given, path) {
    const { minLength, maxLength, pattern, format } = given;
    const least = count(minLength, `${path}.minLength`, 0);
    const most = count(maxLength, `${path}.maxLength`, Number.POSITIVE_INFINITY);
    ordered(least, most, `${path}.minLength`, 'maxLength');
    const named = ['pattern', 'format'].filter((key) => given[key] !== undefined);
    if (minLength !== undefined || maxLength !== undefined) named.push('minLength or maxLength');
    if (named.length > 1) throw new ArgumentError(`${path}: ${named.join(' with ')} is not supported`);
    if (pattern !== undefined || format !== undefined) {
      if (format !== undefined && !Object.hasOwn(FORMATS, format))
        throw new ArgumentError(
          `${path}.format: ${show(format)} is none of the supported formats: ${Object.keys(FORMATS).join(', ')}`,
        );
      if (pattern !== undefined && typeof pattern !== 'string')
        throw new ArgumentError(`${path}.pattern must be a regular expression, got ${show(pattern)}`);
      const source = pattern ?? FORMATS[format];
      try {
        const { body, copies } = patternGrammar(source, (parts) => this.#choice(parts));
        if (pattern !== undefined) this.#count(copies, `${path}.pattern`);
        return this.#rule(`pattern ${source}`, () => `"\\"" ${body} "\\""`);
      } catch (error) {
        if (!(error instanceof PatternError)) throw error;
        throw new ArgumentError(`${path}.pattern: in ${show(source)}, ${error.message}`);
      }
    }
    if (least === 0 && most === Number.POSITIVE_INFINITY) return this.#plainString();
    this.#count(most === Number.POSITIVE_INFINITY ? least : most, path);
    const body = times(this.#character(), least, most);
    return this.#rule(`string ${least} ${most}`, () => `"\\"" ${body} "\\""`);
  }

  /** @param {boolean} whole @param {Schema} given @param {string} path */
  #number(whole, given, path) {
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = given;
    for (const key of KEYWORDS.number) {
      const value = given[key];
      if (value === undefined) continue;
      if (typeof value !== 'number' || !Number.isFinite(value))
        throw new ArgumentError(`${path}.${key} must be a number, got ${show(value)}`);
      if (whole && !Number.isSafeInteger(Math.trunc(value)))
        throw new ArgumentError(`${path}.${key} must be exact in JavaScript, got ${show(value)}`);
      if (!whole && !(Number.isInteger(value) && Math.abs(value) <= LARGEST_BOUND))
        throw new ArgumentError(
          `${path}.${key} of a number is supported from -1e9 to 1e9 and without a fraction, got ${show(value)}`,
        );
    }
    const from = Math.max(minimum ?? Number.NEGATIVE_INFINITY, exclusiveMinimum ?? Number.NEGATIVE_INFINITY);
    const to = Math.min(maximum ?? Number.POSITIVE_INFINITY, exclusiveMaximum ?? Number.POSITIVE_INFINITY);
    const [afterFrom, beforeTo] = [from === exclusiveMinimum, to === exclusiveMaximum];
    if (whole) {
      const first = afterFrom ? Math.floor(from) + 1 : Math.ceil(from);
      const last = beforeTo ? Math.ceil(to) - 1 : Math.floor(to);
      ordered(first, last, `${path}: the least integer`, 'the largest one');
      if (first === Number.NEGATIVE_INFINITY && last === Number.POSITIVE_INFINITY)
        return this.#rule('integer', () => ANY_INTEGER);
      return this.#rule(`integer ${first} ${last}`, () => this.#choice(integers(first, last)));
    }
    if (from > to || (from === to && (afterFrom || beforeTo)))
      throw new ArgumentError(`${path}: no number is from ${from} to ${to}`);
    if (from === Number.NEGATIVE_INFINITY && to === Number.POSITIVE_INFINITY)
      return this.#rule('number', () => ANY_NUMBER);
    const bounds = { from, to, afterFrom, beforeTo };
    return this.#rule(`number ${JSON.stringify([`${from}`, `${to}`, afterFrom, beforeTo])}`, () =>
      this.#choice(numbers(bounds)),
    );
  }

  /** @param {Schema} given @param {Place} place */
  #array(given, place) {
    const { path } = place;
    const { items, prefixItems = [] } = given;
    const least = count(given.minItems, `${path}.minItems`, 0);
    let most = count(given.maxItems, `${path}.maxItems`, Number.POSITIVE_INFINITY);
    if (Array.isArray(items))
      throw new ArgumentError(`${path}.items must be a schema; a list of schemas is called prefixItems`);
    if (!Array.isArray(prefixItems))
      throw new ArgumentError(`${path}.prefixItems must be a list of schemas, got ${show(prefixItems)}`);
    ordered(least, most, `${path}.minItems`, 'maxItems');
    const inside = (/** @type {string} */ step) => this.#inside(place, step);
    const first = prefixItems.slice(0, most).map((one, i) => this.convert(one, inside(`prefixItems[${i}]`)));
    // Without a schema for the rest, no more items are written than must be.
    const ends = items === false || (items === undefined && first.length > 0 && least <= first.length);
    if (ends && least > first.length)
      throw new ArgumentError(`${path}.minItems is ${least}, and prefixItems has ${first.length}`);
    if (ends) most = first.length;
    const item = ends ? '' : this.#part(this.convert(items ?? true, inside('items')));
    if (first.length === 0) return ends ? '"[" "]"' : this.#list(item, least, most, path);
    const rest = ends
      ? ''
      : ` ${this.#repeat(`${COMMA} ${item}`, Math.max(0, least - first.length), most - first.length, path)}`;
    return `"[" ${first.join(` ${COMMA} `)}${rest} "]"`;
  }

  /**
   * A part that is used more than once.
   * @param {string} body
   */
  #part(body) {
    return /^\w+$/.test(body) ? body : this.#rule(`part ${body}`, () => body);
  }

  /** @param {Place} place @param {string} step @returns {Place} */
  #inside = ({ path, depth }, step) => ({ path: `${path}.${step}`, refs: [], depth: depth + 1 });

  /** @param {string} part @param {number} least @param {number} most @param {string} path */
  #repeat(part, least, most, path) {
    this.#count(most === Number.POSITIVE_INFINITY ? least : most, path);
    return times(part, least, most);
  }

  /** @param {string} item @param {number} least @param {number} most @param {string} [path] */
  #list(item, least, most, path = this.#name) {
    if (most === 0) return '"[" "]"';
    const more = this.#repeat(`${COMMA} ${item}`, Math.max(0, least - 1), most - 1, path);
    const some = `${item} ${more}`;
    return `"[" ${least === 0 ? `(${some})?` : some} "]"`;
  }

  /** An object with any names. @param {string} value @param {boolean} [some] @param {number} [most] */
  #map(value, some = false, most = Number.POSITIVE_INFINITY) {
    if (most === 0) return '"{" "}"';
    const entry = `${this.#plainString()} ${COLON} ${value}`;
    const all = `${entry} ${times(`${COMMA} ${entry}`, 0, most - 1)}`;
    return `"{" ${some ? all : `(${all})?`} "}"`;
  }

  /** @param {Schema} given @param {Place} place */
  #object(given, place) {
    const { path } = place;
    const { properties = {}, required = [], additionalProperties: others = true } = given;
    if (typeof properties !== 'object' || properties === null || Array.isArray(properties))
      throw new ArgumentError(`${path}.properties must be an object of schemas, got ${show(properties)}`);
    if (!Array.isArray(required) || !required.every((name) => typeof name === 'string'))
      throw new ArgumentError(`${path}.required must be a list of names, got ${show(required)}`);
    const least = count(given.minProperties, `${path}.minProperties`, 0);
    const most = count(given.maxProperties, `${path}.maxProperties`, Number.POSITIVE_INFINITY);
    ordered(least, most, `${path}.minProperties`, 'maxProperties');
    const names = [...new Set([...Object.keys(properties), ...required])];
    const [missing] = names.filter((name) => !Object.hasOwn(properties, name));
    if (missing !== undefined && others === false)
      throw new ArgumentError(`${path}.required has ${show(missing)}, which is none of the properties`);
    if (names.length === 0) return this.#free(others, { least, most }, place);
    const needs = new Set(required);
    const may = names.filter((name) => needs.has(name) || (properties[name] ?? others) !== false);
    if (least > needs.size || most < may.length)
      throw new ArgumentError(
        `${path}: minProperties and maxProperties are supported where they follow from properties and required, got ${show(least)} and ${show(most)}`,
      );
    const members = may.map((name) => {
      const isNamed = Object.hasOwn(properties, name);
      const step = isNamed ? `properties.${name}` : 'additionalProperties';
      const value = this.convert(isNamed ? properties[name] : others, this.#inside(place, step));
      return { body: `${literal(JSON.stringify(name))} ${COLON} ${value}`, isNeeded: needs.has(name) };
    });
    return members.length === 0 ? '"{" "}"' : this.#members(members);
  }

  /**
   * An object whose properties have no names.
   * @param {unknown} others
   * @param {{ least: number, most: number }} numbers
   * @param {Place} place
   */
  #free(others, { least, most }, place) {
    const { path } = place;
    if (least > 1)
      throw new ArgumentError(
        `${path}.minProperties over 1 is not supported, as names may repeat; got ${least}`,
      );
    if (others === false && least > 0)
      throw new ArgumentError(`${path}.minProperties is ${least}, and there are no properties`);
    if (others === false) return '"{" "}"';
    if (most !== Number.POSITIVE_INFINITY) this.#count(most, `${path}.maxProperties`);
    const value = this.convert(others, this.#inside(place, 'additionalProperties'));
    return this.#map(this.#part(value), least > 0, most);
  }

  /**
   * An object with named properties in their order. A rule for each property continues with it or a
   * later one, so that the grammar grows with their number and not with that of their subsets.
   * @param {{ body: string, isNeeded: boolean }[]} members
   */
  #members(members) {
    const bodies = members.map(({ body }) => this.#part(body));
    let rest = '';
    /** The rest of the object behind each property; empty at the end. @type {string[]} */
    const after = [];
    for (let i = members.length - 1; i >= 0; i--) {
      after[i] = rest;
      const next = `${COMMA} ${bodies[i]} ${rest}`;
      rest = this.#newRule(members[i].isNeeded ? next : this.#choice([next, rest || '""']));
    }
    const firstNeeded = members.findIndex(({ isNeeded }) => isNeeded);
    const starts = bodies
      .slice(0, firstNeeded < 0 ? undefined : firstNeeded + 1)
      .map((body, i) => `${body} ${after[i]}`);
    const some = this.#choice(starts);
    return `"{" ${firstNeeded < 0 ? `(${some})?` : some} "}"`;
  }
}

/** @param {unknown} value @param {string} name @param {number} usual */
function count(value, name, usual) {
  if (value === undefined) return usual;
  if (Number.isSafeInteger(value) && Number(value) >= 0) return Number(value);
  throw new ArgumentError(`${name} must be an integer of 0 or more, got ${show(value)}`);
}

/** @param {number} least @param {number} most @param {string} name @param {string} other */
function ordered(least, most, name, other) {
  if (least > most) throw new ArgumentError(`${name} is ${least}, and ${other} is ${most}`);
}

/** Whether JSON can write a value. @param {unknown} value @returns {boolean} */
function isJson(value) {
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value === 'object' && value !== null) return Object.values(value).every(isJson);
  return value === null || typeof value === 'string' || typeof value === 'boolean';
}
