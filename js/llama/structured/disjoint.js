/* Tells whether two schemas have no value in common, as far as types and constants say. */

export const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'];

/** The types of a value. @param {unknown} value */
export function typesOf(value) {
  if (value === null) return ['null'];
  if (Array.isArray(value)) return ['array'];
  if (typeof value === 'number') return Number.isInteger(value) ? ['integer', 'number'] : ['number'];
  return [typeof value];
}

/**
 * Whether no value can satisfy both schemas, as far as their types and constants tell.
 * @param {any} one
 * @param {any} other
 * @returns {boolean}
 */
export function areDisjoint(one, other) {
  const [a, b] = [valuesOf(one), valuesOf(other)];
  if (a && b) return !a.some((value) => b.some((same) => mayBeEqual(value, same)));
  const typesIn = (/** @type {any} */ schema) =>
    valuesOf(schema)?.flatMap(typesOf) ?? (schema?.type === undefined ? TYPES : [schema.type].flat());
  const wide = (/** @type {string[]} */ types) =>
    types.flatMap((type) => (type === 'number' ? ['number', 'integer'] : [type]));
  const [these, those] = [wide(typesIn(one)), wide(typesIn(other))];
  if (!these.some((type) => those.includes(type))) return true;
  if (!these.every((type) => type === 'object') || !those.every((type) => type === 'object')) return false;
  const [mine, its] = [one, other].map(({ required }) => (Array.isArray(required) ? required : []));
  const needed = mine.filter((name) => its.includes(name));
  return needed.some((/** @type {string} */ name) => {
    const [here, there] = [one, other].map(({ properties }) => valuesOf(properties?.[name]));
    return here && there && areDisjoint({ enum: here }, { enum: there });
  });
}

/** @param {unknown} one @param {unknown} other */
const mayBeEqual = (one, other) =>
  one === other || (typesOf(one)[0] === typesOf(other)[0] && typeof one === 'object' && one !== null);

/** @param {any} schema @returns {unknown[] | undefined} */
const valuesOf = (schema) =>
  schema !== null && typeof schema === 'object'
    ? 'const' in schema
      ? [schema.const]
      : Array.isArray(schema.enum)
        ? schema.enum
        : undefined
    : undefined;
