/* Types of the options and results of kernels. Nothing here exists at run time. */

/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./selftest.js').Activation} Activation */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./handles.js').Weight} Weight */
/** @typedef {import('./operands.js').Floats} Floats */
/** @typedef {import('./module.js').WasmSource} WasmSource */

/**
 * @typedef {object} KernelsOptions
 * @property {Isa} [isa]  Use only this instruction set. Default:
 *   the best that passes its self-test.
 * @property {Activation} [activation]  Activation mode of calls that name none. Default 'int16'.
 * @property {Dot} [dot]  Variant of the relaxed instruction set; default: the faster one, timed.
 * @property {number} [threads]  Threads of operations, 1 to 64, the caller included. Default: a
 *   share of the processors, at most 8. Without shared memory there is one thread, and
 *   info.threadsReason says why.
 * @property {boolean} [memory64]  Use 64-bit addresses, for more than 4 GiB, where the engine has
 *   them; info.memory64 says whether it does.
 * @property {WasmSource | import('./loader.js').ModuleTable} [wasm]  Modules to use instead of the
 *   package's own: one, or several by name.
 */

/**
 * @typedef {object} KernelsInfo  How kernels were chosen, and how they run
 * @property {string} version  Version of the library.
 * @property {Isa} isa  Name of the instruction set in use.
 * @property {Dot | undefined} dot  Variant of the relaxed instruction set in use; undefined for the
 *   other sets.
 * @property {Activation} activation  Activation mode of calls that name none.
 * @property {import('./loader.js').Step[]} steps  The modules and variants that were tried, in
 *   order.
 * @property {string} reason  One line that says why this instruction set was chosen.
 * @property {number} threads  Threads that operations use, the caller included.
 * @property {string} threadsReason  One line that says why there are so many threads, and how to
 *   get more where that is possible.
 * @property {boolean} memory64  Whether addresses have 64 bits.
 * @property {string | undefined} memory64Reason  One line that says why, if memory64 was asked for.
 * @property {import('./loader.js').Features} features  What this engine's WebAssembly supports.
 * @property {import('./loader.js').Timings} timings  Milliseconds that the steps of loading took.
 * @property {Record<string, number> | undefined} dotTimes  Milliseconds per call of each relaxed
 *   variant, where the choice was timed.
 * @property {string | undefined} wasmUrl  Address of the module in use, if it came from one.
 * @property {number | undefined} wasmBytes  Size of the module in bytes, if it is known.
 */

/**
 * @typedef {object} ServedType
 * @property {string} name  Name as GGUF spells it, e.g. 'Q4_K'.
 * @property {number} id  Number as GGUF has it.
 * @property {number} blockValues  Values in a block.
 * @property {number} blockBytes  Bytes of a block.
 * @property {number} alignment  Alignment of a block in bytes.
 */

/**
 * How a weight type and an activation mode are served.
 * @typedef {object} Service
 * @property {Isa} isa  Instruction set of the kernels.
 * @property {Activation} activation  Activation mode that the kernels work in.
 */

/**
 * @typedef {object} WeightData
 * @property {string | number} type  Weight type, by name ('Q4_K') or by GGUF's number.
 * @property {number} nRows  Rows: the outputs of a product.
 * @property {number} nCols  Columns: a multiple of the values in the type's block.
 * @property {ArrayBufferLike | ArrayBufferView} [data]  The blocks, row by row, as a GGUF file
 *   holds them. Only an F32 weight may have none; it is zeros then.
 * @property {string} [name]  Name of the weight in messages.
 */

/**
 * @typedef {object} LoadOptions
 * @property {(progress: { loaded: number, total: number }) => void} [onProgress]  Called after each
 *   chunk with the bytes loaded so far, and the total.
 * @property {AbortSignal} [signal]  Aborts the loading.
 */

/**
 * @template {Float32Array | Tensor | Weight} U
 * @typedef {object} DequantizeOptions
 * @property {number} [start]  First row. Default 0.
 * @property {number} [end]  Row after the last one. Default: all rows.
 * @property {U} [out]  Where the result goes: (end - start) * nCols values. A Weight must be
 *   another one, of type F32.
 */

/**
 * Activation function of a gate; 'gelu' is the tanh form, 'relu' is max(x, 0). 'clamped' is the gate of
 * gpt-oss: x * sigmoid(1.702 x) with x = min(gate, 7), times min(max(up, -7), 7) + 1 in place of up.
 * @typedef {'silu' | 'gelu' | 'relu' | 'clamped'} Gate
 */

/**
 * @typedef {object} RopeOptions
 * @property {number} headSize  Values of a head.
 * @property {number} [nHeads]  Heads of a token. A Tensor implies it: nCols / headSize.
 * @property {number} [position]  Position of the first token. Default 0.
 * @property {number} [nDims]  How many values at the start of every head are rotated, an even
 *   number. Default: all.
 * @property {number} [base]  Base of the frequencies. Default 10000.
 * @property {number} [linearScale]  RoPE position scale: positions are divided by it. Default 1.
 * @property {Floats} [factors]  nDims / 2 numbers that the frequencies are divided by, as in Llama
 *   3. Default: ones.
 * @property {number} [magnitude]  Factor of the rotated values. Default 1.
 * @property {'adjacent' | 'halves'} [pairing]  Which values turn together: 'adjacent' pairs (2i, 2i
 *   + 1), 'halves' pairs (i, i + nDims / 2). Default 'adjacent'.
 */

/**
 * @template {Floats} U
 * @typedef {object} ManyOptions
 * @property {readonly U[]} [out]  Where the results go: nTokens * nRows values for each weight.
 * @property {Activation} [activation]  Activation mode of this call.
 */

/**
 * @template {Floats} U
 * @typedef {object} GatedOptions
 * @property {Gate} [act]  Activation function of the gate. Default 'silu'.
 * @property {U} [out]  Where the result goes: nTokens * nRows values.
 * @property {Activation} [activation]  Activation mode of this call.
 */

/**
 * @typedef {object} FfnWeights
 * @property {Weight} gate  Gate matrix, nFf x nEmbd.
 * @property {Weight} up  Up matrix, nFf x nEmbd.
 * @property {Weight} down  Down matrix, nEmbd x nFf.
 * @property {Floats | null} [norm]  Weights of the RMS norm in front, nEmbd values; without them
 *   there is no norm.
 */

/**
 * @template {Floats} U
 * @typedef {object} FfnOptions
 * @property {number} [eps]  Epsilon of the norm. Default 1e-5.
 * @property {Gate} [act]  Activation function of the gate. Default 'silu'.
 * @property {boolean} [residual]  Add x to the result. Default false.
 * @property {U} [out]  Where the result goes: as many values as x; may be x itself.
 * @property {Activation} [activation]  Activation mode of this call.
 */

/**
 * @typedef {object} RouteOptions
 * @property {number} nUsed  Experts that are chosen for a token.
 * @property {number} [nExperts]  All experts, at most 1024. A Tensor implies them: its columns.
 * @property {'softmax' | 'sigmoid'} [scores]  Function of the logits. Default 'softmax'.
 * @property {'all' | 'chosen'} [over]  Logits that a softmax is taken over: those of all experts, or
 *   of the chosen ones, which have the largest logits then. Default 'all'.
 * @property {boolean} [normalize]  Divide the weights of a token by their sum. Default false.
 * @property {number} [scale]  Factor of the weights. Default 1.
 * @property {Floats} [bias]  nExperts numbers that are added to the scores for the choice only.
 *   Default: zeros.
 * @property {number} [nGroups]  Groups of neighbouring experts, a divisor of nExperts. Default 1.
 * @property {number} [nGroupsUsed]  Groups that experts are chosen from: those whose two best
 *   experts have the largest sums. Default: all.
 */

/**
 * The experts of some tokens: a list of pairs (token, expert), grouped by expert. The pairs of expert
 * 0 come first, then those of expert 1, and so on.
 * @typedef {object} Routing
 * @property {number} nTokens  Number of tokens.
 * @property {Uint32Array<ArrayBuffer>} rows  Token of each pair.
 * @property {Uint32Array<ArrayBuffer>} ends  For each expert the place behind its last pair.
 * @property {Float32Array<ArrayBuffer>} weights  Weight of each pair.
 */

/**
 * @template {Floats} U
 * @typedef {object} ExpertsOptions
 * @property {Gate} [act]  Multiply act(x) * up instead of x. Both have a row for each pair then.
 * @property {Floats} [up]  As many values as x. Without it, act(x) is multiplied as it is.
 * @property {readonly (Floats | undefined)[]} [biases]  For each weight as many values as it has
 *   rows, or undefined for zeros.
 * @property {readonly U[]} [out]  Where the results go.
 * @property {Activation} [activation]  Activation mode of this call.
 */

/**
 * @template {Floats} U
 * @typedef {object} ConvOptions
 * @property {Floats | null} [bias]  nChannels values. Default: zeros.
 * @property {'silu' | 'gelu' | 'relu'} [act]  Activation function of the result. Default: none.
 * @property {U} [out]  Where the result goes: as many values as x; may be x itself.
 */

/**
 * @template {Floats} U
 * @typedef {object} FlashOptions
 * @property {number} [nHeads]  Query heads of a token: a multiple of the cache's nKvHeads. A Tensor
 *   implies it: nCols / headSize.
 * @property {number} [firstPosition]  Position of q's first token. Default 0.
 * @property {number} [nPositions]  How many positions of the caches are looked at. Default
 *   firstPosition + nTokens.
 * @property {boolean} [causal]  Whether a token sees only positions up to its own. Default true.
 * @property {number} [window]  How many of the latest positions it may see are kept; 0 keeps all.
 *   Where attention is not causal, a token sees the positions up to window / 2 away. Default 0.
 * @property {number} [start]  Place in the caches of position 0, so that several texts can share
 *   them. Default 0.
 * @property {number} [scale]  Factor of the scores. Default 1 / sqrt(headSize).
 * @property {number} [softcap]  A value over 0 turns scores into softcap * tanh(score / softcap).
 *   Default 0.
 * @property {Floats} [sinks]  nHeads numbers: one more score of each head, whose value is 0, after
 *   scale and softcap. Default: none.
 * @property {U} [out]  Where the result goes: as many values as q; not q itself.
 */

/**
 * @typedef {object} DeltaGates
 * @property {Floats} alpha  nTokens * nValueHeads values, of which the decays follow:
 *   e^(a * softplus(alpha + dtBias)).
 * @property {Floats} beta  nTokens * nValueHeads values; a token writes sigmoid(beta) of its value.
 * @property {Floats} dtBias  nValueHeads values.
 * @property {Floats} a  nValueHeads values, below 0.
 */

/**
 * @template {Floats} U
 * @typedef {object} DeltaOptions
 * @property {number} [nKeyHeads]  Heads of queries and keys; value head h reads head h % nKeyHeads.
 *   Default: as many as of values.
 * @property {Floats} [gate]  As many values as the result, which becomes
 *   rmsNorm(o, normWeight) * silu(gate), head by head. Default: the result is o.
 * @property {Floats} [normWeight]  valueSize values. Default: ones.
 * @property {number} [eps]  Epsilon of that norm and of the lengths of queries and keys, which are
 *   divided by sqrt(sum of squares + eps). Default 1e-6.
 * @property {U} [out]  Where the result goes; it overlaps nothing else.
 */

/**
 * @typedef {object} ScanSteps
 * @property {Floats} dt  nTokens * nHeads values; a step is softplus(dt + dtBias).
 * @property {Floats} dtBias  nHeads values.
 * @property {Floats} a  nHeads values, below 0 in models: a step decays the state by e^(step * a).
 * @property {Floats} d  nHeads values: factors of x in the result.
 */

export {};
