/** What went wrong, in words a visitor can act on. The message of the library stays: it has the numbers. */

/** @typedef {Error & { code?: string }} CodedError */

/** @type {[test: RegExp, advice: string][]} */
const advices = [
  [
    /\bis not supported; supported are\b/,
    'Only the writer needs a supported architecture: under the hood its tensors can be looked at and multiplied by.',
  ],
  [/types without kernels/, 'Another quantisation of the same model, such as Q4_K_M or Q8_0, will run.'],
  [
    /cannot fetch https?:.*(Failed to fetch|NetworkError|Load failed)/i,
    'Either the network is down, the address is wrong, or its server does not allow other pages to read from it (CORS). Download the file, and drop it here.',
  ],
  [
    /HTTP 40[13]/,
    'The file may be private, or its licence must be accepted first. Download it, and drop it here.',
  ],
  [
    /\ball( \d+)? parts as a list\b|\bmissing from the list\b/,
    'Choose or drop all parts together, or give the link of the first.',
  ],
  [/HTTP 404/, 'There is no file at this address: check the link.'],
  [/HTTP 5\d\d|HTTP 429/, 'The server is busy or broken: try again later.'],
  [/does not answer Range requests/, 'Download the file, and drop it here.'],
  [/no token that ends a text/, 'This model cannot write JSON: choose Text under Options.'],
  [/^responseFormat\.schema/, 'Change the JSON schema under Options: not every schema can be followed.'],
  [/the worker (ended|cannot be started)/, 'Open the file again.'],
  [/magic|not a GGUF|no GGUF/i, 'Models for this page are files that end with .gguf.'],
];

/** @type {Record<string, string>} */
const byCode = {
  FM_MEMORY: 'Close other tabs, or choose a smaller model or quantisation.',
  FM_GPU: 'Run the model on the CPU instead.',
  FM_CONTEXT: 'Shorten the text, or begin a new one.',
};

/** Advice of the library's messages that is for those who build pages. */
const forBuilders = /; where a build moved it.*|\. Its script must be there.*/s;

/** The message of an error as a visitor needs it. @param {Error} error */
export const messageOf = ({ message }) =>
  message
    .replace(forBuilders, '')
    .replace(/^the worker (ended|cannot be started): /, 'The worker stopped: ')
    .replace(/^responseFormat\.schema/, 'the schema');

/**
 * @param {CodedError} error
 * @returns {string} what to do about it; '' when there is nothing to say
 */
export function adviceFor(error) {
  const found = advices.find(([test]) => test.test(error.message));
  return found?.[1] ?? byCode[error.code ?? ''] ?? '';
}

/** Whether a file that cannot write may still be looked into. @param {CodedError} error */
export const isUnrunnable = (error) =>
  ['FM_MODEL', 'FM_SHAPE'].includes(error.code ?? '') ||
  /of the tensors of a .* model are missing/.test(error.message);
