/**
 * Finds test data from outside the repository: the folder named by the environment variable
 * FM_TEST_DATA, by default `../shared` beside the project if it exists. Tests that need it are
 * skipped, with the reason, if it is absent.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = resolve(fileURLToPath(new URL('../..', import.meta.url)));

const named = process.env.FM_TEST_DATA;
const folder = named ? resolve(projectRoot, named) : resolve(projectRoot, '../shared');

/** Whether there is any external test data. */
export const hasTestData = existsSync(folder);

/**
 * The reason why a test that needs `parts` of the test data cannot run, or false if it can (for
 * node:test's `skip`).
 * @param {...string} parts  path below the test data folder
 * @returns {string | false}
 */
export function skipWithout(...parts) {
  if (!hasTestData) return `no test data: ${named ? `FM_TEST_DATA=${named}` : '../shared'} does not exist`;
  return existsSync(join(folder, ...parts)) ? false : `no test data: ${parts.join('/')} is not in it`;
}

/** @param {...string} parts @returns {string} the path of a test data file */
export const dataPath = (...parts) => join(folder, ...parts);

/**
 * @param {...string} parts
 * @returns {Uint8Array} a copy of its own, so that typed arrays of any width can view it
 */
export const readData = (...parts) => new Uint8Array(readFileSync(dataPath(...parts)));

/**
 * @param {...string} parts
 * @returns {string[]} names in a test data folder, sorted; empty if it is absent
 */
export const listData = (...parts) => (skipWithout(...parts) ? [] : readdirSync(dataPath(...parts)).sort());
