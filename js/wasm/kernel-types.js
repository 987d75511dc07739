/* The types of what kernels are given and what they say about themselves. Nothing here exists at run time. */

/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./selftest.js').Activation} Activation */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./handles.js').Weight} Weight */
/** @typedef {import('./operands.js').Floats} Floats */
/** @typedef {import('./module.js').WasmSource} WasmSource */

/**
 * @typedef {object} KernelsOptions
 * @property {Isa} [isa]  only this instruction set; default: the best that passes its self-test
 * @property {Activation} [activation]  what activations become, where a call does not say; default 'int16'
 * @property {Dot} [dot]  the relaxed variant; default: the faster one, timed
 * @property {number} [threads]  1 to 64, the caller included; default: a share of the processors, 8 at most. Without shared memory it
 *   is one thread, and info.threadsReason says why
 * @property {boolean} [memory64]  64-bit addresses, for more than 4 GiB, where the engine has them; info.memory64 says whether
 * @property {WasmSource | import('./loader.js').ModuleTable} [wasm]  instead of the package's own modules: one, or by name
 */

/**
 * @typedef {object} KernelsInfo  what was chosen and why
 * @property {string} version  of the library
 * @property {Isa} isa  the instruction set in use
 * @property {Dot | undefined} dot  of the relaxed set only
 * @property {Activation} activation  the mode for calls that name none
 * @property {import('./loader.js').Step[]} steps  what was tried, in order
 * @property {string} reason  one line
 * @property {number} threads  that operations use, the caller included
 * @property {string} threadsReason  one line: why so many; where they could be more, how
 * @property {boolean} memory64  addresses have 64 bits
 * @property {string | undefined} memory64Reason  one line, where memory64 was asked for
 * @property {import('./loader.js').Features} features  of this engine
 * @property {import('./loader.js').Timings} timings  of loading, in milliseconds
 * @property {Record<string, number> | undefined} dotTimes  milliseconds a call, where a choice was timed
 * @property {string | undefined} wasmUrl  of the module in use, where it came from an address
 * @property {number | undefined} wasmBytes  its size, where that is known
 */

/**
 * @typedef {object} ServedType
 * @property {string} name  as GGUF spells it
 * @property {number} id  as GGUF numbers it
 * @property {number} blockValues  values a block holds
 * @property {number} blockBytes  bytes a block takes
 * @property {number} alignment  bytes
 */

/**
 * How a weight type and an activation mode are served.
 * @typedef {object} Service
 * @property {Isa} isa  of the kernels
 * @property {Activation} activation  the mode they work in
 */

/**
 * @typedef {object} WeightData
 * @property {string | number} type  name or id
 * @property {number} nRows  rows: outputs of a product
 * @property {number} nCols  a multiple of the type's block
 * @property {ArrayBufferLike | ArrayBufferView} [data]  blocks, row by row; an F32 weight may have none
 * @property {string} [name]  for messages
 */

/**
 * @typedef {object} LoadOptions
 * @property {(progress: { loaded: number, total: number }) => void} [onProgress]  bytes, after each chunk
 * @property {AbortSignal} [signal]  ends the loading
 */

/**
 * @template {Float32Array | Tensor | Weight} U
 * @typedef {object} DequantizeOptions
 * @property {number} [start]  first row, default 0
 * @property {number} [end]  behind the last row, default all
 * @property {U} [out]  (end - start) * nCols values; a Weight must be another one, of type F32
 */

/** What a gate goes through; 'gelu' is the tanh form. @typedef {'silu' | 'gelu'} Gate */

/**
 * @typedef {object} RopeOptions
 * @property {number} headSize  values of a head
 * @property {number} [nHeads]  heads of a token; a Tensor says it itself: nCols / headSize
 * @property {number} [position]  of the first token, default 0
 * @property {number} [nDims]  the first values of every head that are rotated, even; default all
 * @property {number} [base]  default 10000
 * @property {number} [linearScale]  positions are divided by it, default 1
 * @property {Floats} [factors]  nDims / 2 values, by which frequencies are divided (llama3); default ones
 * @property {'adjacent' | 'halves'} [pairing]  (2i, 2i + 1), the default, or (i, i + nDims / 2)
 */

/**
 * @template {Floats} U
 * @typedef {object} ManyOptions
 * @property {readonly U[]} [out]  one of nTokens * nRows values for each weight
 * @property {Activation} [activation]  the mode of this call
 */

/**
 * @template {Floats} U
 * @typedef {object} GatedOptions
 * @property {Gate} [act]  default 'silu'
 * @property {U} [out]  nTokens * nRows values
 * @property {Activation} [activation]  the mode of this call
 */

/**
 * @typedef {object} FfnWeights
 * @property {Weight} gate  nFf x nEmbd
 * @property {Weight} up  nFf x nEmbd
 * @property {Weight} down  nEmbd x nFf
 * @property {Floats | null} [norm]  nEmbd values; without it there is no norm
 */

/**
 * @template {Floats} U
 * @typedef {object} FfnOptions
 * @property {number} [eps]  of the norm, default 1e-5
 * @property {Gate} [act]  default 'silu'
 * @property {boolean} [residual]  adds x, default false
 * @property {U} [out]  as many values as x; may be x
 * @property {Activation} [activation]  the mode of this call
 */

/**
 * @template {Floats} U
 * @typedef {object} FlashOptions
 * @property {number} [nHeads]  of a token; a Tensor says it itself: nCols / headSize. A multiple of the cache's nKvHeads
 * @property {number} [firstPosition]  of q's first token, default 0
 * @property {number} [nPositions]  of the caches that are looked at; default firstPosition + nTokens
 * @property {boolean} [causal]  a token sees positions up to its own only; default true
 * @property {number} [window]  only the last so many of those it may see; default 0: all
 * @property {number} [scale]  of the scores, default 1 / sqrt(headSize)
 * @property {number} [softcap]  > 0: scores become softcap * tanh(score / softcap); default 0
 * @property {U} [out]  as many values as q; not q itself
 */

export {};
