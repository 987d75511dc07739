/* Finds the model in a folder. */

import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { firstPartOf } from '../gguf/split.js';
import { UsageError } from './options.js';

/** Most models listed in a message. */
const MAX_LISTED = 5;

/**
 * The file of a model. A folder must hold exactly one model; all parts of a split model count as
 * one.
 * @param {string} model  a path or a URL
 * @returns {Promise<string>} the path of the file, or of the first part; anything but a folder is
 *   returned unchanged
 */
export async function modelFile(model) {
  const stats = await stat(model).catch(() => undefined);
  if (!stats?.isDirectory()) return model;
  const files = (await readdir(model)).filter((name) => /\.gguf$/i.test(name));
  const models = [...new Set(files.map((name) => firstPartOf(name, true)))].sort();
  if (models.length === 1) return path.join(model, models[0]);
  if (models.length === 0) throw new UsageError(`the folder ${model} holds no file that ends with .gguf`);
  const names = models.slice(0, MAX_LISTED).join(', ');
  throw new UsageError(
    `the folder ${model} holds ${models.length} models, name one of them: ${names}${models.length > MAX_LISTED ? ', ...' : ''}`,
  );
}
