/* The types of kernels in a worker, derived from those of kernels in this thread. Nothing here
 * exists at run time. */

/** @typedef {import('../wasm/kernels.js').Kernels} Kernels */
/** @typedef {import('../wasm/handles.js').Weight} Weight */
/** @typedef {import('../wasm/handles.js').Tensor} Tensor */
/** @typedef {import('../wasm/kv-cache.js').KvCache} KvCache */
/** @typedef {import('./handles.js').WorkerWeight} WorkerWeight */
/** @typedef {import('./handles.js').WorkerTensor} WorkerTensor */
/** @typedef {import('./handles.js').WorkerKvCache} WorkerKvCache */
/** @typedef {import('./methods.js').MethodName} MethodName */

/**
 * Options of every call.
 * @typedef {object} CallOptions
 * @property {AbortSignal} [signal]  An abort rejects the promise at once. A call whose turn has not
 *   come is never run.
 * @property {readonly ArrayBuffer[]} [transfer]  Buffers of the arguments to move to the worker
 *   instead of copying them.
 */

/**
 * @typedef {object} WorkerOnlyOptions
 * @property {import('./port.js').WorkerSource} [worker]  A Worker that runs
 *   `fused-matmul/worker-host`, a function that makes one, or the URL of its script. dispose()
 *   terminates it. Default: a worker of the library.
 * @property {AbortSignal} [signal]  Aborts the creation.
 */

/**
 * @typedef {import('../wasm/kernel-types.js').KernelsOptions & WorkerOnlyOptions}
 *   WorkerKernelsOptions
 */

/**
 * The future result of an operation in a sequence.
 * @template T
 * @typedef {{
 *   readonly __type?: T,
 *   free(): void,
 *   rows: T extends WorkerWeight
 *     ? (start: number, nRows: number) => SequenceValue<WorkerWeight> : never,
 *   set: T extends WorkerTensor ? (values: In<Float32Array>, offset?: number) => void : never,
 *   toArray: T extends WorkerTensor ? () => SequenceValue<Float32Array<ArrayBuffer>> : never,
 *   write: T extends WorkerKvCache
 *     ? (x: In<Float32Array | Tensor>, position: number) => void : never,
 * }} SequenceValue
 */

/**
 * Type of an argument: handles become handles to a worker, or results of a sequence.
 * @template T
 * @typedef {T extends Weight ? WorkerWeight | SequenceValue<WorkerWeight>
 *   : T extends Tensor ? WorkerTensor | SequenceValue<WorkerTensor>
 *   : T extends KvCache ? WorkerKvCache | SequenceValue<WorkerKvCache>
 *   : T extends Float32Array ? Float32Array | SequenceValue<Float32Array>
 *   : T extends ArrayBufferLike | ArrayBufferView ? T
 *   : T extends object ? { [K in keyof T]: In<T[K]> }
 *   : T} In
 */

/**
 * Arguments of a call. If the method takes options (with `out`), the options of the call are added
 * to them; otherwise they are one more argument.
 * @template {unknown[]} A
 * @typedef {Required<A> extends [...unknown[], infer Last]
 *   ? 'out' extends keyof NonNullable<Last> ? { [K in keyof A]: OptionsIn<A[K]> }
 *   : [...{ [K in keyof A]: In<A[K]> }, CallOptions?] : [CallOptions?]} ArgumentsOf
 */

/**
 * @template T
 * @typedef {T extends object
 *   ? 'out' extends keyof T ? In<T> & CallOptions : In<T> : In<T>} OptionsIn
 */

/**
 * Type of a result: that of `out`, or else that of the first argument with values.
 * @template {unknown} B
 * @typedef {[OutOf<B>] extends [never] ? KindOf<B> : OutOf<B>} ChosenKind
 */

/**
 * @template {unknown} B
 * @typedef {B extends readonly [infer Head, ...infer Rest]
 *   ? Head extends { out: infer U extends object }
 *     ? ValueOf<U extends readonly (infer E)[] ? E : U> : OutOf<Rest>
 *   : never} OutOf
 */

/**
 * @template {unknown} B
 * @typedef {B extends readonly [infer Head, ...infer Rest]
 *   ? ValueOf<Head> extends Float32Array ? Float32Array<ArrayBuffer>
 *   : ValueOf<Head> extends WorkerTensor ? WorkerTensor
 *   : KindOf<Rest>
 *   : Float32Array<ArrayBuffer>} KindOf
 */

/** @template T @typedef {T extends SequenceValue<infer V> ? V : T} ValueOf */

/**
 * @template R
 * @template B
 * @typedef {[Float32Array] extends [R] ? ChosenKind<B>
 *   : R extends Weight ? WorkerWeight
 *   : R extends Tensor ? WorkerTensor
 *   : R extends KvCache ? WorkerKvCache
 *   : R extends (infer E)[] ? [Float32Array] extends [E] ? ChosenKind<B>[] : R
 *   : R} ResultOf
 */

/**
 * @template F
 * @typedef {F extends (...args: infer A) => infer R
 *   ? <B extends ArgumentsOf<A>>(...args: B) => Promise<ResultOf<R, B>> : never} Promised
 */

/**
 * @template T
 * @typedef {T extends (infer E)[] ? SequenceValue<E>[] : SequenceValue<T>} Noted
 */

/**
 * @template F
 * @typedef {F extends (...args: infer A) => infer R
 *   ? <B extends { [K in keyof A]: In<A[K]> }>(...args: B) => Noted<ResultOf<R, B>>
 *   : never} NotedCall
 */

/**
 * The operations, each with a promise.
 * @typedef {{ [K in MethodName]: Promised<Kernels[K]> }} WorkerMethods
 */
/**
 * The operations of a sequence.
 * @typedef {{ [K in Exclude<MethodName, 'select'>]: NotedCall<Kernels[K]> }} SequenceOps
 */

/**
 * Type of the values that come back from a sequence.
 * @template R
 * @typedef {R extends WorkerWeight | WorkerTensor | WorkerKvCache | ArrayBufferView ? R
 *   : R extends { readonly __type?: infer V, toArray: unknown } ? V
 *   : R extends Promise<infer V> ? V
 *   : R extends readonly unknown[] ? { -readonly [K in keyof R]: Returned<R[K]> }
 *   : R extends object ? { [K in keyof R]: Returned<R[K]> }
 *   : R} Returned
 */

/** @typedef {import('./client.js').WorkerKernels & WorkerMethods} WorkerKernels */

export {};
