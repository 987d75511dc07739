/**
 * Result files, with one JSON record a line, so that a repeated measurement changes few lines. The
 * first line says where and how the results were measured, each further line is one `Result`.
 * Numbers have four significant digits.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

/** @import { Result } from './report.js' */

/** @typedef {{ machine: string, engine: string, command: string, date: string }} Setting */

const DIGITS = 4;

/** Keeps sizes and counts, and rounds measured numbers. @param {string} _ @param {unknown} value */
const rounded = (_, value) =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(DIGITS)) : value;

/**
 * @param {string | URL} file
 * @returns {Setting & { results: Result[] } | undefined}  undefined if there is no such file
 */
export function readResults(file) {
  if (!existsSync(file)) return undefined;
  const [setting, ...results] = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return { ...setting, results };
}

/**
 * The results of the measured cases, with those of other cases from the file.
 * @param {string} file @param {Result[]} results
 */
export function mergedResults(file, results) {
  const measured = new Set(results.map((result) => result.case));
  const before = readResults(file)?.results ?? [];
  return [...before.filter((result) => !measured.has(result.case)), ...results];
}

/**
 * @param {string} file @param {Setting} setting @param {Result[]} results  the results of this run
 */
export function writeResults(file, setting, results) {
  const lines = [setting, ...mergedResults(file, results)].map((record) => JSON.stringify(record, rounded));
  writeFileSync(file, `${lines.join('\n')}\n`);
}
