/* Chooses a module and, in it, an instruction set: feature detection, self-test, timed choice; one step down
 * on each failure. */

import { relaxedSimd, simd, threads } from 'wasm-feature-detect';
import { ArgumentError, IsaError, LoadError, show } from './errors.js';
import { DOT_NAMES, ISA_NAMES, selfTest, timeDots } from './selftest.js';
import { compile, instantiate } from './wasm.js';

/** @typedef {import('./memory.js').WasmExports} WasmExports */
/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./wasm.js').WasmSource} WasmSource */
/** @typedef {{ isa: Isa, dot?: Dot, ok: boolean, reason: string }} Step */
/** @typedef {{ simd: boolean, relaxedSimd: boolean, threads: boolean }} Features */

/**
 * @typedef {object} Loaded
 * @property {WebAssembly.Module} module
 * @property {WasmExports} exports  with isa and dot selected
 * @property {Isa} isa
 * @property {Dot | undefined} dot  of the relaxed set only
 * @property {Step[]} steps  what was tried, in order
 * @property {string} reason  one line: why this one
 * @property {Features} features
 * @property {{ compileMs: number, selfTestMs: number, chooseMs: number, totalMs: number }} timings
 * @property {Record<string, number> | undefined} dotTimes  milliseconds a call, where a choice was timed
 * @property {string | undefined} wasmUrl
 * @property {number | undefined} wasmBytes
 */

/** The version of the C ABI this code is written for, as fm_version packs it; the last part may differ. */
export const VERSION = '0.1.0';

/** From the best down. */
const ORDER = /** @type {Isa[]} */ ([...ISA_NAMES].reverse());

/** Each URL a literal of its own: bundlers find the files by this pattern. */
const WASM_URLS = {
  relaxed: new URL('../dist/fused-relaxed.wasm', import.meta.url),
  simd128: new URL('../dist/fused-simd128.wasm', import.meta.url),
  scalar: new URL('../dist/fused-scalar.wasm', import.meta.url),
};

/**
 * What the self-test (by set and variant) and the timed choice found.
 * @typedef {{ failures: Map<string, string | undefined>, times?: Record<string, number> }} Verdict
 */

/** By module: asked once in a process. @type {WeakMap<WebAssembly.Module, Verdict>} */
const verdicts = new WeakMap();

/** @returns {Promise<Features>} */
export async function detectFeatures() {
  const [hasSimd, hasRelaxedSimd, hasThreads] = await Promise.all([simd(), relaxedSimd(), threads()]);
  return { simd: hasSimd, relaxedSimd: hasRelaxedSimd, threads: hasThreads };
}

/**
 * @param {{ isa?: Isa, dot?: Dot, wasm?: WasmSource | Partial<Record<Isa, WasmSource>> }} options
 * @returns {Promise<Loaded>}
 */
export async function load({ isa, dot, wasm }) {
  if (typeof WebAssembly !== 'object') throw new LoadError('this engine has no WebAssembly');
  const started = performance.now();
  const features = await detectFeatures();
  /** @type {Step[]} */
  const steps = [];
  const timings = { compileMs: 0, selfTestMs: 0, chooseMs: 0, totalMs: 0 };
  /** @type {unknown[]} */
  const failures = [];
  for (const candidate of candidates(isa, wasm)) {
    try {
      const loaded = await tryModule(candidate, { dot, features, steps, timings });
      timings.totalMs = performance.now() - started;
      return { ...loaded, features, steps, timings, reason: explain(loaded, steps, isa) };
    } catch (error) {
      if (error instanceof ArgumentError) throw error;
      failures.push(error);
      if (error instanceof LoadError)
        steps.push({ isa: candidate.isas[0], ok: false, reason: error.message });
    }
  }
  if (failures.length === 1) throw failures[0];
  const reasons = steps.map((step) => `${step.isa}: ${step.reason}`).join('; ');
  const cause = failures.at(-1);
  if (cause instanceof LoadError) throw new LoadError(`no module can be loaded: ${reasons}`, { cause });
  throw new IsaError(`no instruction set can be used: ${reasons}`, { isa, cause });
}

/**
 * The modules to try, each with the instruction sets to try in it. Of the package's own modules each stands
 * for the set it is named after; a single module that was given stands for all it holds.
 * @param {Isa | undefined} forced
 * @param {WasmSource | Partial<Record<Isa, WasmSource>> | undefined} wasm
 * @returns {{ isas: Isa[], source: WasmSource }[]}
 */
function candidates(forced, wasm = WASM_URLS) {
  const isas = forced ? [forced] : ORDER;
  if (!isModuleTable(wasm)) return [{ isas, source: wasm }];
  const found = isas.flatMap((isa) =>
    wasm[isa] === undefined ? [] : [{ isas: [isa], source: /** @type {WasmSource} */ (wasm[isa]) }],
  );
  if (found.length > 0) return found;
  throw new ArgumentError(
    `wasm has no module for ${isas.join(', ')}: its keys are ${show(Object.keys(wasm).join(', '))}`,
  );
}

/**
 * @param {unknown} wasm
 * @returns {wasm is Partial<Record<Isa, WasmSource>>}
 */
function isModuleTable(wasm) {
  return typeof wasm === 'object' && wasm !== null && ORDER.some((isa) => isa in wasm);
}

/**
 * @param {{ isas: Isa[], source: WasmSource }} candidate
 * @param {{ dot?: Dot, features: Features, steps: Step[], timings: Loaded['timings'] }} attempt
 */
async function tryModule({ isas, source }, { dot, features, steps, timings }) {
  const usable = isas.filter((isa) => {
    const reason = lacking(isa, features);
    if (reason) steps.push({ isa, ok: false, reason });
    return !reason;
  });
  if (usable.length === 0) throw new IsaError(`${isas[0]}: ${lacking(isas[0], features)}`, { isa: isas[0] });

  let start = performance.now();
  const { module, url, bytes } = await compile(source);
  const exports = await instantiate(module, url);
  timings.compileMs += performance.now() - start;
  checkVersion(exports, url);

  const best = ISA_NAMES[exports.fm_isa()];
  for (const isa of usable) {
    // A module that was given may simply be a lower one: no failure to report.
    if (isas.length > 1 && ISA_NAMES.indexOf(isa) > ISA_NAMES.indexOf(best)) continue;
    start = performance.now();
    const dots = testVariants({ exports, module, steps }, isa, dot);
    timings.selfTestMs += performance.now() - start;
    if (dots.length === 0) continue;
    start = performance.now();
    const choice = chooseDot(exports, module, isa, dots);
    timings.chooseMs += performance.now() - start;
    return { exports, module, isa, ...choice, wasmUrl: url, wasmBytes: bytes };
  }
  throw new IsaError(`${isas[0]}: ${steps.at(-1)?.reason ?? `the module holds ${best} at most`}`, {
    isa: isas[0],
  });
}

/**
 * @param {Isa} isa
 * @param {Features} features
 * @returns {string | undefined}
 */
function lacking(isa, features) {
  if (isa === 'relaxed' && !features.relaxedSimd) return 'this engine has no relaxed SIMD';
  if (isa !== 'scalar' && !features.simd) return 'this engine has no SIMD';
  return undefined;
}

/**
 * The variants of an instruction set that pass the self-test; each is a step.
 * @param {{ exports: WasmExports, module: WebAssembly.Module, steps: Step[] }} target
 * @param {Isa} isa
 * @param {Dot} [forced]
 * @returns {Dot[]}
 */
function testVariants({ exports, module, steps }, isa, forced) {
  /** @type {readonly Dot[]} */
  const dots = isa !== 'relaxed' ? ['i16'] : forced ? [forced] : DOT_NAMES;
  return dots.filter((dot) => {
    const failure = verify(exports, module, isa, dot);
    const which = isa === 'relaxed' ? { isa, dot } : { isa };
    steps.push({ ...which, ok: !failure, reason: failure ?? 'passed its self-test' });
    return !failure;
  });
}

/**
 * Selects an instruction set and variant, with its self-test on the module's first time.
 * @param {WasmExports} exports
 * @param {WebAssembly.Module} module
 * @param {Isa} isa
 * @param {Dot} dot
 * @returns {string | undefined} why it cannot be used
 */
export function verify(exports, module, isa, dot) {
  const verdict = verdictOf(module);
  const key = `${isa} ${dot}`;
  if (!verdict.failures.has(key)) verdict.failures.set(key, selfTest(exports, isa, dot));
  const failure = verdict.failures.get(key);
  if (!failure) exports.fm_select(ISA_NAMES.indexOf(isa), DOT_NAMES.indexOf(dot));
  return failure;
}

/**
 * Selects the faster of the variants.
 * @param {WasmExports} exports
 * @param {WebAssembly.Module} module
 * @param {Isa} isa
 * @param {Dot[]} dots
 * @returns {{ dot: Dot | undefined, dotTimes: Record<string, number> | undefined }}
 */
function chooseDot(exports, module, isa, dots) {
  let dot = dots[0];
  const verdict = verdictOf(module);
  if (dots.length > 1) {
    verdict.times ??= timeDots(exports, dots);
    const { times } = verdict;
    for (const other of dots) if (times[other] < times[dot]) dot = other;
  }
  exports.fm_select(ISA_NAMES.indexOf(isa), DOT_NAMES.indexOf(dot));
  if (isa !== 'relaxed') return { dot: undefined, dotTimes: undefined };
  return { dot, dotTimes: dots.length > 1 ? { ...verdict.times } : undefined };
}

/** @param {WebAssembly.Module} module */
function verdictOf(module) {
  let verdict = verdicts.get(module);
  if (!verdict) {
    verdict = { failures: new Map() };
    verdicts.set(module, verdict);
  }
  return verdict;
}

/**
 * @param {WasmExports} exports
 * @param {string | undefined} url
 */
function checkVersion(exports, url) {
  const packed = exports.fm_version();
  const got = [packed >>> 16, (packed >>> 8) & 255, packed & 255].join('.');
  if (got.slice(0, got.lastIndexOf('.')) !== VERSION.slice(0, VERSION.lastIndexOf('.'))) {
    throw new LoadError(`${url ?? 'the given module'} is version ${got}, this library ${VERSION}`, { url });
  }
}

/**
 * @param {{ isa: Isa, dot: Dot | undefined, dotTimes: Record<string, number> | undefined }} chosen
 * @param {Step[]} steps
 * @param {Isa | undefined} forced
 */
function explain({ isa, dot, dotTimes }, steps, forced) {
  const parts = [`${isa} ${forced ? 'was asked for and' : 'is the best set that'} passed its self-test`];
  const fmt = (/** @type {number} */ ms) => `${(ms * 1000).toFixed(2)} µs`;
  if (dot && dotTimes)
    parts.push(
      `dot ${dot} was timed fastest (${Object.entries(dotTimes)
        .map(([name, ms]) => `${name} ${fmt(ms)}`)
        .join(', ')})`,
    );
  for (const step of steps)
    if (!step.ok) parts.push(`${step.isa}${step.dot ? ` ${step.dot}` : ''}: ${step.reason}`);
  return parts.join('; ');
}
