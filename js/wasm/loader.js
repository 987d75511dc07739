/* Chooses a module and an instruction set in it: feature detection, self-test, timed choice,
 * threads. On a failure the next lower set is tried. */

import { MODULE_NAMES, wasmUrl } from '../assets.js';
import { checkNames } from '../checks.js';
import { ArgumentError, IsaError, LoadError, show } from '../errors.js';
import { performance } from '../node.js';
import { detectFeatures } from './features.js';
import { compile, instantiate, isForbidden } from './module.js';
import { DOT_NAMES, ISA_NAMES, selfTest, timeDots } from './selftest.js';
import { planThreads } from './threads.js';

/** @typedef {import('./memory.js').WasmExports} WasmExports */
/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./module.js').WasmSource} WasmSource */
/** @typedef {import('./threads.js').ThreadPlan} ThreadPlan */

/**
 * An attempt to use a module or a variant.
 * @typedef {object} Step
 * @property {Isa} isa  Instruction set.
 * @property {ModuleName} [module]  Module, if it is one of several for that set.
 * @property {Dot} [dot]  Variant of the relaxed set.
 * @property {number} [threads]  Number of threads.
 * @property {boolean} ok  Whether it can be used.
 * @property {string} reason  One line that says why, or why not.
 */

/**
 * Features of this engine's WebAssembly.
 * @typedef {object} Features
 * @property {boolean} simd  128-bit SIMD.
 * @property {boolean} relaxedSimd  Relaxed SIMD.
 * @property {boolean} threads  Shared memory and atomics.
 * @property {boolean} memory64  64-bit addresses.
 */

/**
 * Milliseconds that the steps of loading took.
 * @typedef {object} Timings
 * @property {number} compileMs  Fetching, compiling and instantiating modules.
 * @property {number} selfTestMs  Self-tests.
 * @property {number} chooseMs  Timing the variants.
 * @property {number} threadsMs  Starting threads.
 * @property {number} totalMs  Everything.
 */

/**
 * A module of the package: dist/fused-NAME.wasm.
 * @typedef {Isa | 'simd128-mt' | 'relaxed-mt' | 'relaxed-mt-64'} ModuleName
 */
/** Modules by name. @typedef {Partial<Record<ModuleName, WasmSource>>} ModuleTable */

/**
 * Options of createKernels that the loader uses.
 * @typedef {object} Wanted
 * @property {Isa} [isa]
 * @property {Dot} [dot]
 * @property {WasmSource | ModuleTable} [wasm]
 * @property {number} [threads]
 * @property {boolean} [memory64]
 */

/**
 * @typedef {object} Loaded
 * @property {WebAssembly.Module} module
 * @property {import('./module.js').Instance} instance  Instance with isa and dot selected.
 * @property {import('./pool.js').ThreadPool | undefined} pool  The other threads, if there are any.
 * @property {Isa} isa
 * @property {Dot | undefined} dot  Variant, for the relaxed set only.
 * @property {Step[]} steps  The modules and variants that were tried, in order.
 * @property {string} reason  One line that says why this set was chosen.
 * @property {string} threadsReason  One line that says why there are so many threads.
 * @property {string | undefined} memory64Reason  One line, if 64-bit addresses were asked for.
 * @property {Features} features
 * @property {Timings} timings
 * @property {Record<string, number> | undefined} dotTimes  Milliseconds per call, if the choice was
 *   timed.
 * @property {string | undefined} wasmUrl
 * @property {number | undefined} wasmBytes
 */

/**
 * Version of the C ABI that this code is written for, as fm_version packs it; the last part may
 * differ.
 */
export const VERSION = '0.1.0';

/** Instruction sets from the best down. */
const ORDER = /** @type {Isa[]} */ ([...ISA_NAMES].reverse());

/**
 * Results of a module's self-tests (by set and variant) and of the timed choice.
 * @typedef {{ passed: Set<string>, times?: Record<string, number> }} Verdict
 */

/**
 * Results by module, so that each test runs once in a process.
 * @type {WeakMap<WebAssembly.Module, Verdict>}
 */
const verdicts = new WeakMap();

/** Advice in messages, when the package's own modules cannot be loaded. */
const MISSING_MODULES =
  'put the .wasm files there (npm run build, or the bundler), or pass createKernels({ wasm }): see the README, Bundlers';

/**
 * A module to try, and the instruction sets to try in it.
 * @typedef {{ name?: ModuleName, isas: Isa[], source: WasmSource }} Candidate
 */

/**
 * State of loading: settings, and the record of what was tried.
 * @typedef {object} Attempt
 * @property {Dot} [dot]
 * @property {Features} features
 * @property {ThreadPlan} plan
 * @property {Step[]} steps
 * @property {Loaded['timings']} timings
 * @property {Set<Isa>} ruledOut  Instruction sets that no module can offer here.
 */

/**
 * @param {Wanted} wanted
 * @returns {Promise<Loaded>}
 */
export async function load(wanted) {
  if (typeof WebAssembly !== 'object') throw new LoadError('this engine has no WebAssembly');
  const { isa, dot } = wanted;
  const started = performance.now();
  const features = detectFeatures();
  const plan = await planThreads(wanted.threads, features);
  const timings = { compileMs: 0, selfTestMs: 0, chooseMs: 0, threadsMs: 0, totalMs: 0 };
  /** @type {Attempt} */
  const attempt = { dot, features, plan, steps: [], timings, ruledOut: new Set() };
  const { steps } = attempt;
  /** @type {unknown[]} */
  const failures = [];
  for (const candidate of candidates(wanted, plan)) {
    if (candidate.isas.every((name) => attempt.ruledOut.has(name))) continue;
    try {
      const loaded = await tryModule(candidate, attempt);
      timings.totalMs = performance.now() - started;
      const reason = explain(loaded, steps, isa);
      const threadsReason = explainThreads(loaded, attempt);
      const memory64Reason = wanted.memory64
        ? (await import('./memory64.js')).explain64(
            loaded.instance.is64,
            failureOf(steps, /-64$/),
            candidate.name === undefined,
          )
        : undefined;
      return { ...loaded, reason, threadsReason, memory64Reason, features, steps, timings };
    } catch (error) {
      if (error instanceof ArgumentError || isForbidden(error)) throw error;
      failures.push(error);
      if (error instanceof LoadError) steps.push({ ...stepOf(candidate), ok: false, reason: error.message });
    }
  }
  if (failures.length === 1 && (wanted.wasm !== undefined || !(failures[0] instanceof LoadError)))
    throw failures[0];
  const reasons = steps.map((step) => `${step.module ?? step.isa}: ${step.reason}`).join('; ');
  const cause = failures.at(-1);
  if (cause instanceof LoadError) {
    const hint = wanted.wasm === undefined ? `; ${MISSING_MODULES}` : '';
    throw new LoadError(`no module can be loaded: ${reasons}${hint}`, { cause, url: cause.url });
  }
  throw new IsaError(`no instruction set can be used: ${reasons}`, { isa, cause });
}

/**
 * The modules to try. A module of the package is tried for the set it is named after. The 64-bit
 * module, and a single module given by the caller, are tried for all sets they hold.
 * @param {Wanted} wanted
 * @param {ThreadPlan} plan
 * @returns {Candidate[]}
 */
function candidates({ isa: forced, wasm, memory64 }, { count }) {
  const isas = forced ? [forced] : ORDER;
  if (wasm !== undefined && !isModuleTable(wasm)) return [{ isas, source: wasm }];
  if (wasm !== undefined) checkNames(wasm, MODULE_NAMES, 'module');
  /** @type {Candidate[]} */
  const found = [];
  const add = (/** @type {ModuleName} */ name, /** @type {Isa[]} */ sets) => {
    const source = wasm === undefined ? wasmUrl(name) : wasm[name];
    if (source !== undefined) found.push({ name, isas: sets, source });
  };
  if (memory64) add('relaxed-mt-64', isas);
  for (const isa of isas) {
    if (count > 1 && isa !== 'scalar') add(`${isa}-mt`, [isa]);
    add(isa, [isa]);
  }
  if (found.length > 0) return found;
  throw new ArgumentError(
    `wasm has no module for ${isas.join(', ')}: its keys are ${show(Object.keys(wasm ?? {}).join(', '))}`,
  );
}

/**
 * @param {unknown} wasm
 * @returns {wasm is ModuleTable}
 */
function isModuleTable(wasm) {
  return typeof wasm === 'object' && wasm !== null && MODULE_NAMES.some((name) => name in wasm);
}

/**
 * The fields of a step that name its module.
 * @param {Candidate} candidate
 * @param {Isa} [isa]
 */
function stepOf({ name, isas }, isa = isas[0]) {
  return name === undefined || name === isa ? { isa } : { isa, module: name };
}

/**
 * @param {Candidate} candidate
 * @param {Attempt} attempt
 */
async function tryModule(candidate, attempt) {
  const { dot, features, steps, timings, plan, ruledOut } = attempt;
  const { isas } = candidate;
  const no64 = candidate.name === 'relaxed-mt-64' && (await import('./memory64.js')).lacking64(features);
  if (no64) {
    steps.push({ ...stepOf(candidate), ok: false, reason: no64 });
    throw new IsaError(no64, { isa: isas[0] });
  }
  const usable = isas.filter((isa) => {
    const reason = lacking(isa, features);
    if (reason) steps.push({ isa, ok: false, reason });
    if (reason) ruledOut.add(isa);
    return !reason;
  });
  if (usable.length === 0) throw new IsaError(`${isas[0]}: ${lacking(isas[0], features)}`, { isa: isas[0] });

  let start = performance.now();
  const { module, url, bytes } = await compile(candidate.source);
  const instance = await instantiate(module, url);
  const { exports } = instance;
  timings.compileMs += performance.now() - start;
  checkVersion(exports, url);

  start = performance.now();
  const pool = instance.isShared && plan.count > 1 ? await newPool(exports, plan.count) : undefined;
  await pool?.spawn(module, instance);
  timings.threadsMs += performance.now() - start;

  const best = ISA_NAMES[exports.fm_isa()];
  for (const isa of usable) {
    // A module given by the caller may just be of a lower set; that is no failure.
    if (isas.length > 1 && ISA_NAMES.indexOf(isa) > ISA_NAMES.indexOf(best)) continue;
    start = performance.now();
    const dots = testVariants({ exports, module, steps }, stepOf(candidate, isa), dot);
    timings.selfTestMs += performance.now() - start;
    if (dots.length === 0) {
      if (candidate.name) ruledOut.add(isa);
      continue;
    }
    start = performance.now();
    const choice = chooseDot(exports, module, isa, dots);
    timings.chooseMs += performance.now() - start;
    start = performance.now();
    await pool?.ready();
    timings.threadsMs += performance.now() - start;
    return { name: candidate.name, module, instance, pool, isa, ...choice, wasmUrl: url, wasmBytes: bytes };
  }
  pool?.end();
  throw new IsaError(`${isas[0]}: ${steps.at(-1)?.reason ?? `the module holds ${best} at most`}`, {
    isa: isas[0],
  });
}

/** @param {WasmExports} exports @param {number} count */
async function newPool(exports, count) {
  const { ThreadPool } = await import('./pool.js');
  return new ThreadPool(exports, count);
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
 * The variants of an instruction set that pass the self-test; each test is recorded as a step.
 * @param {{ exports: WasmExports, module: WebAssembly.Module, steps: Step[] }} target
 * @param {{ isa: Isa, module?: ModuleName }} step
 * @param {Dot} [forced]
 * @returns {Dot[]}
 */
function testVariants({ exports, module, steps }, step, forced) {
  const { isa } = step;
  /** @type {readonly Dot[]} */
  const dots = isa !== 'relaxed' ? ['i16'] : forced ? [forced] : DOT_NAMES;
  return dots.filter((dot) => {
    const failure = verify(exports, module, isa, dot);
    const which = isa === 'relaxed' ? { ...step, dot } : step;
    steps.push({ ...which, ok: !failure, reason: failure ?? 'passed its self-test' });
    return !failure;
  });
}

/**
 * Selects an instruction set and variant, after a self-test unless it has passed one before.
 * @param {WasmExports} exports
 * @param {WebAssembly.Module} module
 * @param {Isa} isa
 * @param {Dot} dot
 * @returns {string | undefined} the reason why it cannot be used
 */
export function verify(exports, module, isa, dot) {
  const verdict = verdictOf(module);
  const key = `${isa} ${dot}`;
  // The variants of a set differ only in their int8 products.
  const hasPassed = DOT_NAMES.some((other) => verdict.passed.has(`${isa} ${other}`));
  // Failures are not recorded: the cause may have been a lack of memory.
  const failure = verdict.passed.has(key)
    ? undefined
    : selfTest(exports, isa, dot, hasPassed ? ['int8'] : undefined);
  if (failure) return failure;
  verdict.passed.add(key);
  exports.fm_select(ISA_NAMES.indexOf(isa), DOT_NAMES.indexOf(dot));
  return undefined;
}

/**
 * Selects the faster variant.
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
    verdict = { passed: new Set() };
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
    if (!step.ok) parts.push(`${step.module ?? step.isa}${step.dot ? ` ${step.dot}` : ''}: ${step.reason}`);
  return parts.join('; ');
}

/**
 * The first of these modules that cannot be used, and why not.
 * @param {Step[]} steps
 * @param {RegExp} modules
 */
function failureOf(steps, modules) {
  const step = steps.find((other) => !other.ok && modules.test(other.module ?? ''));
  return step && `${step.module}: ${step.reason}`;
}

/**
 * The reason for the number of threads.
 * @param {{ name?: ModuleName, isa: Isa, pool?: import('./pool.js').ThreadPool }} loaded
 * @param {Attempt} attempt
 */
function explainThreads({ name, isa, pool }, { plan, steps }) {
  let threadsReason = plan.reason;
  if (pool?.failure) threadsReason = `one thread: ${pool.failure}`;
  else if (!pool && plan.count > 1) {
    const none = isa === 'scalar' ? 'there is no scalar module with threads' : `wasm has no ${isa}-mt`;
    threadsReason = `one thread: ${failureOf(steps, /-mt/) ?? (name ? none : 'the given module has none')}`;
  }
  return threadsReason;
}
