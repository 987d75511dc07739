/* strftime_now(format): the local time in the format of Python's datetime.now().strftime(format),
 * in the C locale. */

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  ...['January', 'February', 'March', 'April', 'May', 'June'],
  ...['July', 'August', 'September', 'October', 'November', 'December'],
];

/** Number of days since 1 January. @param {Date} time */
const dayOfYear = (time) =>
  Math.round(
    (Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) - Date.UTC(time.getFullYear(), 0, 1)) /
      864e5,
  );

/** Year and week of ISO 8601. @param {Date} time */
function isoWeek(time) {
  const thursday = new Date(Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()));
  thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7));
  const year = thursday.getUTCFullYear();
  return { year, week: 1 + Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / (7 * 864e5)) };
}

/**
 * A number that flags may pad differently.
 * @typedef {[value: number, width: number, fill: string]} Padded
 */

/** @type {Record<string, (time: Date) => string | Padded>} */
const FIELDS = {
  a: (t) => DAYS[t.getDay()].slice(0, 3),
  A: (t) => DAYS[t.getDay()],
  b: (t) => MONTHS[t.getMonth()].slice(0, 3),
  B: (t) => MONTHS[t.getMonth()],
  c: (t) => strftime('%a %b %e %H:%M:%S %Y', t),
  C: (t) => [Math.floor(t.getFullYear() / 100), 2, '0'],
  d: (t) => [t.getDate(), 2, '0'],
  D: (t) => strftime('%m/%d/%y', t),
  e: (t) => [t.getDate(), 2, ' '],
  f: (t) => String(t.getMilliseconds() * 1000).padStart(6, '0'),
  F: (t) => strftime('%Y-%m-%d', t),
  g: (t) => [isoWeek(t).year % 100, 2, '0'],
  G: (t) => [isoWeek(t).year, 4, '0'],
  H: (t) => [t.getHours(), 2, '0'],
  I: (t) => [t.getHours() % 12 || 12, 2, '0'],
  j: (t) => [dayOfYear(t) + 1, 3, '0'],
  k: (t) => [t.getHours(), 2, ' '],
  l: (t) => [t.getHours() % 12 || 12, 2, ' '],
  m: (t) => [t.getMonth() + 1, 2, '0'],
  M: (t) => [t.getMinutes(), 2, '0'],
  n: () => '\n',
  p: (t) => (t.getHours() < 12 ? 'AM' : 'PM'),
  P: (t) => (t.getHours() < 12 ? 'am' : 'pm'),
  r: (t) => strftime('%I:%M:%S %p', t),
  R: (t) => strftime('%H:%M', t),
  s: (t) => String(Math.floor(t.getTime() / 1000)),
  S: (t) => [t.getSeconds(), 2, '0'],
  t: () => '\t',
  T: (t) => strftime('%H:%M:%S', t),
  u: (t) => String(t.getDay() || 7),
  U: (t) => [Math.floor((dayOfYear(t) + 7 - t.getDay()) / 7), 2, '0'],
  V: (t) => [isoWeek(t).week, 2, '0'],
  w: (t) => String(t.getDay()),
  W: (t) => [Math.floor((dayOfYear(t) + 7 - ((t.getDay() + 6) % 7)) / 7), 2, '0'],
  x: (t) => strftime('%m/%d/%y', t),
  X: (t) => strftime('%H:%M:%S', t),
  y: (t) => [t.getFullYear() % 100, 2, '0'],
  Y: (t) => [t.getFullYear(), 1, '0'],
  // A time without a zone has neither an offset nor a name.
  z: () => '',
  Z: () => '',
  '%': () => '%',
};
FIELDS.h = FIELDS.b;

/**
 * @param {string} format
 * @param {Date} time
 * @returns {string}
 */
export function strftime(format, time) {
  return format.replace(/%([-_0^#]?)(\d{0,2})(.)/gs, (whole, flag, width, letter) => {
    const field = Object.hasOwn(FIELDS, letter) ? FIELDS[letter](time) : undefined;
    if (field === undefined) return whole;
    let text = '';
    if (typeof field === 'string') text = field.padStart(Number(width), flag === '0' ? '0' : ' ');
    else {
      const [value, places, fill] = field;
      const chosen = flag === '_' ? ' ' : flag === '0' ? '0' : fill;
      text = flag === '-' ? String(value) : String(value).padStart(Number(width) || places, chosen);
    }
    if (flag === '^') return text.toUpperCase();
    return flag === '#' ? (letter === 'p' ? text.toLowerCase() : text.toUpperCase()) : text;
  });
}
