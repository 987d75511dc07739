/* The options --schema, --json-object and --grammar: the form of what the model writes. */

import { readFile } from 'node:fs/promises';
import { UsageError } from './options.js';

/**
 * Options of the library.
 * @param {import('./options.js').Values} values
 * @returns {Promise<import('../llama/options.js').GenerateOptions>}
 * @throws {UsageError} several are given, or a file cannot be read
 */
export async function formOptions({ schema, 'json-object': isObject, grammar }) {
  const given = [
    schema !== undefined && '--schema',
    isObject && '--json-object',
    grammar !== undefined && '--grammar',
  ];
  const names = given.filter(Boolean);
  if (names.length > 1) throw new UsageError(`${names.join(' and ')} cannot be combined`);
  if (isObject) return { responseFormat: { type: 'json_object' } };
  if (grammar !== undefined) return { grammar: await read(grammar, '--grammar') };
  if (schema === undefined) return {};
  const text = await read(schema, '--schema');
  try {
    return { responseFormat: { type: 'json_schema', schema: JSON.parse(text) } };
  } catch (error) {
    throw new UsageError(`--schema: ${schema} is no JSON: ${/** @type {Error} */ (error).message}`);
  }
}

/** @param {string} file @param {string} option */
async function read(file, option) {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${option}: ${file} cannot be read: ${/** @type {Error} */ (error).message}`);
  }
}
