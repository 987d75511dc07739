/** Two helpers, so that no view builds HTML from strings. */

/**
 * @param {string} id
 * @returns {any} the element; absence is a bug in index.html
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

/**
 * el('p', { class: 'muted', 'aria-label': 'x' }, 'text', child): attributes that are false or undefined are left out.
 * @param {string} tag
 * @param {Record<string, string | number | boolean | undefined>} [attributes]
 * @param {...(Node | string)} children
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false)
      element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children);
  return element;
}

/** A name that may break after its dots, as in blk.0.attn_output.weight. @param {string} name */
export function breakable(name) {
  return name.split(/(?<=\.)/).flatMap((part, i) => (i ? [el('wbr'), part] : [part]));
}

/** Lets the page take its turn, so that work in parts never holds it up for long. */
export const breathe = () => new Promise((resolve) => setTimeout(resolve, 0));

/** Until what was changed is laid out: work in parts, whose layout is in parts too. */
export const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
