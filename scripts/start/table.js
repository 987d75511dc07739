/** Plain-text tables, and numbers with units. */

/** @param {number} bytes */
export function formatBytes(bytes) {
  const units = ['B', 'KB', 'MB', 'GB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2)} ${units[unit]}`;
}

/** Formats a number with three significant digits. @param {number} value */
export const formatNumber = (value) =>
  value >= 100
    ? value.toFixed(0)
    : value >= 10
      ? value.toFixed(1)
      : value >= 1
        ? value.toFixed(2)
        : value.toPrecision(2);

/** @param {{ ms: number, min: number } | undefined} time */
export const formatTime = (time) => (time ? `${time.ms.toFixed(3)} (${time.min.toFixed(3)})` : '-');

/**
 * @param {string[]} heads  a head that starts with '>' aligns its column to the right
 * @param {string[][]} rows
 */
export function formatTable(heads, rows) {
  const right = heads.map((head) => head.startsWith('>'));
  const lines = [heads.map((head) => head.replace(/^>/, '')), ...rows];
  const widths = heads.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const text = lines.map((line) =>
    line
      .map((cell, i) => (right[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
  text.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '));
  return `${text.join('\n')}\n`;
}
