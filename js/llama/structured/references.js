/* References within a JSON schema. */

/**
 * The steps of a reference, and what is there; undefined if nothing is.
 * @param {unknown} root  the whole schema
 * @param {string} address  e.g. '#/$defs/name'
 * @returns {{ steps: string[], target: any }}
 */
export function follow(root, address) {
  const [start, ...steps] = address.split('/').map((step) => {
    try {
      return decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~');
    } catch {
      return step;
    }
  });
  const target = steps.reduce(
    (/** @type {any} */ at, step) => (at && Object.hasOwn(at, step) ? at[step] : undefined),
    root,
  );
  return { steps, target: start === '#' ? target : undefined };
}

/** Keywords of arrays. */
const LIST_KEYS = ['items', 'prefixItems', 'minItems', 'maxItems'];

/**
 * A reference to a schema of which every value contains another one, so that none ends.
 * @param {unknown} root  the whole schema
 * @param {ReadonlySet<string>} references  those in use
 * @returns {string | undefined}
 */
export function endless(root, references) {
  /** @type {Set<string>} */
  const ending = new Set();
  /** Whether a schema has a value, as far as is known. @param {any} schema @returns {boolean} */
  const ends = (schema) => {
    if (typeof schema !== 'object' || schema === null) return schema !== false;
    const { $ref, anyOf = schema.oneOf, allOf, type } = schema;
    if ($ref !== undefined) return ending.has($ref);
    if (anyOf ?? allOf) return (anyOf ?? allOf).some(ends);
    const hasItems = LIST_KEYS.some((key) => schema[key] !== undefined);
    return [type ?? (hasItems ? 'array' : 'object')]
      .flat()
      .some((one) => (one === 'object' ? ofObject(schema) : one === 'array' ? ofArray(schema) : true));
  };
  /** Whether the values that an object must have end. @param {any} schema */
  const ofObject = ({ properties = {}, required = [], additionalProperties = true, minProperties = 0 }) => {
    const inside = required.map((/** @type {string} */ name) =>
      Object.hasOwn(properties, name) ? properties[name] : additionalProperties,
    );
    return [...inside, ...(minProperties > inside.length ? [additionalProperties] : [])].every(ends);
  };
  /** @param {any} schema */
  const ofArray = ({ items = true, prefixItems = [], minItems = 0, maxItems }) => {
    const first = prefixItems.slice(0, maxItems);
    return [...first, ...(minItems > first.length ? [items] : [])].every(ends);
  };
  for (let before = -1; before < ending.size; ) {
    before = ending.size;
    // A schema comes after the schemas that refer to it.
    for (const one of [...references].reverse())
      if (!ending.has(one) && ends(follow(root, one).target)) ending.add(one);
  }
  return [...references].find((one) => !ending.has(one));
}
