/** Turns the .d.ts files that tsc writes from the JSDoc of js/ into those that users get. */
import path from 'node:path';

const COMMENT = /\/\*\*(?:(?!\*\/)[\s\S])*\*\//g;

/**
 * The JSDoc that a source has on the types it defines. tsc loses it.
 * @param {string} source
 * @returns {Map<string, string>}
 */
function summaries(source) {
  /** @type {Map<string, string>} */
  const found = new Map();
  for (const [comment] of source.matchAll(COMMENT)) {
    const lines = comment.slice(3, -2).replace(/^[ \t]*\* ?/gm, '');
    const [, before, after] = /^([\s\S]*?)@(?:template|typedef)\b([\s\S]*)$/.exec(lines) ?? [];
    const [, type, same] = /@typedef \{object\} (\w+)(.*)/.exec(lines) ?? [];
    const name = type ?? /@typedef [\s\S]*\} ?(\w+)\s*$/.exec(lines)?.[1];
    const text = [before?.trim(), same?.trim()].filter(Boolean).join(' ');
    if (name && after !== undefined && text) found.set(name, text.replace(/\s+/g, ' '));
  }
  return found;
}

/** A constructor that its JSDoc hides: subclasses may call it, users may not. */
const HIDDEN_CONSTRUCTOR =
  /(\/\*\*(?:(?!\*\/)[\s\S])*@hideconstructor(?:(?!\*\/)[\s\S])*\*\/\s*)constructor\([\s\S]*?\);/g;
/** A type imported from another file. It must stay that type and not become a copy. */
const TAKEN_OVER = /export type (\w+)(?:<[^=]*>)? = import\((["']\.[^"']+["'])\)\.\1(?:<[\w, ]+>)?;/g;

/**
 * @param {string} text  a .d.ts
 * @param {string} source  the source it was made from
 */
export function finishDeclarations(text, source) {
  const about = summaries(source);
  const types = text
    // Sources are beside dist/, their declarations are in it.
    .replaceAll('../dist/', '../')
    .replace(COMMENT, (comment) => (comment.includes('@typedef') ? '' : comment))
    .replace(HIDDEN_CONSTRUCTOR, '/** @hideconstructor */\n    protected constructor();')
    .replace(TAKEN_OVER, 'import type { $1 } from $2;\nexport type { $1 };')
    .replace(/^export type (\w+)\b(?! })/gm, (line, name) =>
      about.has(name) ? `/** ${about.get(name)} */\n${line}` : line,
    )
    .replace(/^\s*\n/gm, '');
  // None of TypeScript's default libraries has Symbol.dispose.
  return types.includes('Symbol.dispose') ? `/// <reference lib="esnext.disposable" />\n${types}` : types;
}

/**
 * The declarations that users can reach: the entries of package.json, the files they name, and so
 * on.
 * @param {Record<string, { types?: string } | string>} exports  the field of package.json
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
