/** The .d.ts that tsc writes from the JSDoc of js/, made into what users should meet. */
import path from 'node:path';

const COMMENT = /\/\*\*(?:(?!\*\/)[^])*\*\//g;

/**
 * What the JSDoc of a source says about the types it defines: tsc loses that.
 * @param {string} source
 * @returns {Map<string, string>}
 */
function summaries(source) {
  /** @type {Map<string, string>} */
  const found = new Map();
  for (const [comment] of source.matchAll(COMMENT)) {
    const lines = comment.slice(3, -2).replace(/^[ \t]*\* ?/gm, '');
    const [, before, after] = /^([^]*?)@(?:template|typedef)\b([^]*)$/.exec(lines) ?? [];
    const [, type, same] = /@typedef \{object\} (\w+)(.*)/.exec(lines) ?? [];
    const name = type ?? /@typedef [^]*\} ?(\w+)\s*$/.exec(lines)?.[1];
    const text = [before?.trim(), same?.trim()].filter(Boolean).join(' ');
    if (name && after !== undefined && text) found.set(name, text.replace(/\s+/g, ' '));
  }
  return found;
}

/** A constructor whose JSDoc hides it: for subclasses, and no way to make one. */
const HIDDEN_CONSTRUCTOR =
  /(\/\*\*(?:(?!\*\/)[^])*@hideconstructor(?:(?!\*\/)[^])*\*\/\s*)constructor\([^]*?\);/g;
/** A type taken over from another file, which must stay that type and not become a copy of it. */
const TAKEN_OVER = /export type (\w+)(?:<[^=]*>)? = import\((["']\.[^"']+["'])\)\.\1(?:<[\w, ]+>)?;/g;

/**
 * @param {string} text  a .d.ts
 * @param {string} source  what it was made from
 */
export function finishDeclarations(text, source) {
  const about = summaries(source);
  const types = text
    // The sources lie beside dist/, their declarations in it.
    .replaceAll('../dist/', '../')
    .replace(COMMENT, (comment) => (comment.includes('@typedef') ? '' : comment))
    .replace(HIDDEN_CONSTRUCTOR, '/** @hideconstructor */\n    protected constructor();')
    .replace(TAKEN_OVER, 'import type { $1 } from $2;\nexport type { $1 };')
    .replace(/^export type (\w+)\b(?! })/gm, (line, name) =>
      about.has(name) ? `/** ${about.get(name)} */\n${line}` : line,
    )
    .replace(/^\s*\n/gm, '');
  // No library that is on by default has Symbol.dispose.
  return types.includes('Symbol.dispose') ? `/// <reference lib="esnext.disposable" />\n${types}` : types;
}

/**
 * The declarations that users can get at: the entries of package.json, what they name, and so on.
 * @param {Record<string, { types?: string } | string>} exports  of package.json
 * @param {(file: string) => string} read
 * @returns {Set<string>}  paths from the package's folder
 */
export function reachableTypes(exports, read) {
  const entries = Object.values(exports).flatMap((entry) =>
    typeof entry === 'object' && entry.types ? [path.normalize(entry.types)] : [],
  );
  const found = new Set(entries);
  for (const file of found) {
    for (const [, name] of read(file).matchAll(/(?:from |import\()["'](\.[^"']+)\.js["']/g))
      found.add(path.join(path.dirname(file), `${name}.d.ts`));
  }
  return found;
}
