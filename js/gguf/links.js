/* Turns links to files on Hugging Face, in the forms people use, into the URL of the file. */

import { GgufError, show } from '../errors.js';

const ORIGIN = 'https://huggingface.co';
/** A URL of Hugging Face, with or without a scheme; hf.co is the short form. */
const WEB_LINK = /^(?:https?:)?(?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)(?::443)?(?=[/?#]|$)/i;
/** hf:OWNER/REPO/FILE, with any number of slashes after the colon. */
const SHORT_LINK = /^hf:\/*/i;
/** Path segments of the site that show or serve a file. */
const FILE_VIEWS = new Set(['blob', 'resolve', 'raw', 'blame']);
/**
 * Paths of the site that are not model repositories. Datasets and spaces are repositories too;
 * addresses below the others are left as they are.
 */
const OTHER_REPOSITORIES = new Set(['datasets', 'spaces']);
const OTHER_PATHS = new Set(['api', 'buckets']);
/** Path segments of a repository that do not lead to its files. */
const NO_FILES = new Set(['discussions', 'commit', 'commits', 'compare', 'edit', 'settings', 'viewer']);

const EXAMPLE = 'huggingface.co/OWNER/REPO/blob/main/FILE.gguf';

/**
 * The URL of the file that a link leads to:
 *
 *     https://huggingface.co/OWNER/REPO/blob/REVISION/FOLDER/FILE.gguf
 *         also /resolve/, /raw/, hf.co, http, no scheme
 *     https://huggingface.co/OWNER/REPO?show_file_info=FOLDER%2FFILE.gguf
 *     hf:OWNER/REPO/FOLDER/FILE.gguf    also hf://, and OWNER/REPO@REVISION
 *
 * All other texts, such as addresses elsewhere and paths, are returned unchanged.
 * @param {string} link
 * @returns {string}
 * @throws {GgufError} the link leads to Hugging Face, but not to a file
 */
export function resolveLink(link) {
  const text = link.trim();
  if (SHORT_LINK.test(text)) return resolveShort(text.replace(SHORT_LINK, ''), text);
  if (WEB_LINK.test(text)) return resolveWeb(text.replace(WEB_LINK, ''), text);
  return link;
}

/**
 * Resolves links that have a scheme. In the library, a text without one is a path or a relative
 * address.
 * @param {string} text
 */
export function resolveAddress(text) {
  return /^(hf|https?):/i.test(text) ? resolveLink(text) : text;
}

/**
 * @param {string} rest  the link after the host
 * @param {string} link
 */
function resolveWeb(rest, link) {
  const { pathname, search, searchParams } = new URL(rest.replace(/^(?!\/)/, '/'), ORIGIN);
  const all = segments(pathname);
  if (OTHER_PATHS.has(all[0])) return `${ORIGIN}${pathname}${search}`;
  const { prefix, parts } = split(all);
  // Some of the oldest repositories have no owner.
  const nName = FILE_VIEWS.has(parts[1]) || parts[1] === 'tree' ? 1 : 2;
  const repository = parts.slice(0, nName);
  const [view, ...path] = parts.slice(nName);
  if (repository.length < nName)
    throw linkError(`This is no link to a file: it should look like ${EXAMPLE}.`, link);
  if (FILE_VIEWS.has(view) || view === 'tree') {
    const { revision, file } = splitRevision(path);
    if (file.length > 0 && (view !== 'tree' || isGguf(file.at(-1))))
      return address([...prefix, ...repository], revision, file);
  }
  const shown = searchParams.get('show_file_info');
  if (shown && (view === undefined || view === 'tree'))
    return address([...prefix, ...repository], splitRevision(path).revision, segments(encodePath(shown)));
  if (view !== undefined && view !== 'tree' && !NO_FILES.has(view) && isGguf(parts.at(-1)))
    return address([...prefix, ...repository], 'main', parts.slice(nName));
  if (view === undefined || view === 'tree' || FILE_VIEWS.has(view))
    throw isRepositoryOnly([...prefix, ...repository], link);
  throw linkError(`This link leads to "${view}" of ${repository.join('/')}, not to a file.`, link);
}

/**
 * @param {string} rest  the link after hf:
 * @param {string} link
 */
function resolveShort(rest, link) {
  const all = segments(encodePath(rest.replace(/[?].*$/s, '')));
  const { prefix, parts } = split(all[0] === 'models' && all.length > 3 ? all.slice(1) : all);
  const [owner, named, ...path] = parts;
  if (!owner || !named)
    throw linkError(
      `This is no link to a file: it should look like hf:OWNER/REPO/FILE.gguf, got ${show(link)}.`,
      link,
    );
  const [repo, ...marked] = named.split('@');
  const repository = [...prefix, owner, repo];
  // The path of a page, written after hf:.
  if (marked.length === 0 && FILE_VIEWS.has(path[0]) && path.length > 2) {
    const { revision, file } = splitRevision(path.slice(1));
    return address(repository, revision, file);
  }
  if (marked.length > 0) {
    const { revision, file } = splitRevision([marked.join('@'), ...path]);
    if (file.length === 0 || !revision) throw isRepositoryOnly(repository, link);
    return address(repository, revision, file);
  }
  const [, name, revision] = /^(.*\.gguf)@([^@]+)$/i.exec(path.at(-1) ?? '') ?? [];
  if (name) return address(repository, revision, [...path.slice(0, -1), name]);
  if (path.length === 0) throw isRepositoryOnly(repository, link);
  return address(repository, 'main', path);
}

/** @param {string} path */
const segments = (path) => path.split('/').filter(Boolean);

/** @param {string | undefined} name */
const isGguf = (name) => /\.gguf$/i.test(name ?? '');

/** @param {string[]} all  segments of a path */
function split(all) {
  const isOther = OTHER_REPOSITORIES.has(all[0]);
  return { prefix: isOther ? [all[0]] : [], parts: isOther ? all.slice(1) : all };
}

/**
 * Splits a path into revision and file. Only the revisions of pull requests and conversions contain
 * slashes.
 * @param {string[]} path
 */
function splitRevision([first = 'main', ...file]) {
  const isReference = first === 'refs' && ['pr', 'convert'].includes(file[0]) && file.length > 1;
  if (!isReference) return { revision: first, file };
  return { revision: [first, ...file.slice(0, 2)].join('%2F'), file: file.slice(2) };
}

/**
 * Encodes the characters of a typed path that have a meaning in URLs. Encoded characters stay as
 * they are.
 * @param {string} path
 */
function encodePath(path) {
  return path.replace(/%(?![0-9a-f]{2})|[#?\\]/gi, encodeURIComponent);
}

/**
 * @param {string[]} repository
 * @param {string} revision
 * @param {string[]} file
 */
function address(repository, revision, file) {
  // Such a segment would lead out of the repository.
  if (file.some((step) => /^(?:\.|%2e){1,2}$/i.test(step)))
    throw linkError(`${show(file.join('/'))} is no path in a repository.`, file.join('/'));
  return new URL([ORIGIN, ...repository, 'resolve', revision, ...file].join('/')).href;
}

/**
 * @param {string[]} repository
 * @param {string} link
 */
function isRepositoryOnly(repository, link) {
  const [name, tag] = repository.join('/').split(':');
  return linkError(
    `This is the repository ${name}, not a file${tag ? ` ("${tag}" is no file's name)` : ''}: open ` +
      '"Files and versions" there, and copy the link of a .gguf file.',
    link,
  );
}

/**
 * @param {string} message
 * @param {string} link
 */
function linkError(message, link) {
  return new GgufError(message, { url: link });
}
