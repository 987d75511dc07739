/** Numbers as people read them; a number and its unit stay on one line. */

const nbsp = '\u00a0';

const superscripts = {
  '-': '⁻',
  0: '⁰',
  1: '¹',
  2: '²',
  3: '³',
  4: '⁴',
  5: '⁵',
  6: '⁶',
  7: '⁷',
  8: '⁸',
  9: '⁹',
};

/** Three significant digits, no exponent: 0.0123, 1.23, 12.3, 123, 1,234. @param {number} value */
export function digits(value) {
  if (!Number.isFinite(value)) return String(value);
  return value.toLocaleString(
    'en',
    Math.abs(value) >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 },
  );
}

/** @param {number} value  whole number, with thousands separators */
export const count = (value) => value.toLocaleString('en');

/** @param {number} ms  milliseconds */
export function duration(ms) {
  if (ms < 1e-3) return `${digits(ms * 1e6)}${nbsp}ns`;
  if (ms < 1) return `${digits(ms * 1e3)}${nbsp}µs`;
  if (ms < 1e3) return `${digits(ms)}${nbsp}ms`;
  return `${digits(ms / 1e3)}${nbsp}s`;
}

/** Decimal units: 1 kB is 1000 bytes. @param {number} value */
export function bytes(value) {
  if (value < 1e3) return `${count(value)}${nbsp}B`;
  if (value < 1e6) return `${digits(value / 1e3)}${nbsp}kB`;
  if (value < 1e9) return `${digits(value / 1e6)}${nbsp}MB`;
  return `${digits(value / 1e9)}${nbsp}GB`;
}

/** Two digits and a power of ten: 3.1 × 10⁻⁵. @param {number} value */
export function scientific(value) {
  if (value === 0) return '0';
  if (!Number.isFinite(value)) return String(value);
  const [mantissa, exponent] = value.toExponential(1).split('e');
  const power = [...String(Number(exponent))].map((c) => superscripts[/** @type {'-'} */ (c)]).join('');
  return `${mantissa}${nbsp}×${nbsp}10${power}`;
}

/** Rows × columns, as matrices are written (GGUF order is the other way round). @param {readonly number[]} shape */
export const dimensions = (shape) => [...shape].reverse().map(count).join(`${nbsp}×${nbsp}`);
