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
    const isSimple = (/** @type {string} */ one) => one !== 'object' && one !== 'array';
    return [type ?? 'object'].flat().some(isSimple) || members(schema);
  };
  /** Whether the values that must be inside a value end. @param {any} schema */
  const members = ({ properties = {}, required = [], additionalProperties, ...list }) => {
    const { items, prefixItems = [], minItems = 0, minProperties = 0 } = list;
    const inside = required.map((/** @type {string} */ name) =>
      Object.hasOwn(properties, name) ? properties[name] : (additionalProperties ?? true),
    );
    const first = prefixItems.slice(0, list.maxItems);
    const more = [
      ...(minItems > first.length ? [items ?? true] : []),
      ...(minProperties > inside.length ? [additionalProperties ?? true] : []),
    ];
    return [...inside, ...first, ...more].every(ends);
  };
  for (let before = -1; before < ending.size; ) {
    before = ending.size;
    for (const one of references) if (ends(follow(root, one).target)) ending.add(one);
  }
  return [...references].find((one) => !ending.has(one));
}
