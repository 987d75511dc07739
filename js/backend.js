/* The interface between a model and a device. The runner (js/llama) computes only through it, so a
 * model runs on every implementation: js/wasm/backend.js is the CPU,
 * tests/helpers/reference-backend.js is plain float64 JavaScript.
 *
 * The unit is a block of a model, not a single operation: the CPU runs `attend` as some ten
 * operations, a GPU as a few dispatches. A block comes with the settings of its layer, so no
 * backend asks for an architecture's name.
 *
 * Calls of blocks queue work and return; on the CPU the work is done by then. Only reading, idling
 * and loading are awaited. Errors in arguments are thrown at once. Errors of the device and of
 * numbers (NumericError) are thrown at once, or reject the next call that is awaited. Handles
 * (tensors, caches) have `nRows` and `nCols` or nothing, and are freed with free(); only the
 * backend knows where their values are. */

/** @typedef {import('./gguf/index.js').GgufFile} GgufFile */
/** @typedef {import('./gguf/file.js').GgufTensor} GgufTensor */
/** @typedef {import('./llama/plan.js').Plan} Plan */
/** @typedef {import('./llama/plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('./llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('./llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('./llama/plan.js').EmbeddingSettings} EmbeddingSettings */
/** @typedef {import('./llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('./llama/numeric.js').Place} Place */
/** @typedef {import('./wasm/kv-cache.js').KvType} KvType */

/**
 * Anything that takes memory on the device.
 * @typedef {object} Resource
 * @property {boolean} freed  True after free(), and once the backend is disposed.
 * @property {() => void} free  Frees the memory.
 */

/**
 * A tensor of f32 values on the device, row-major.
 * @typedef {Resource & { nRows: number, nCols: number }} DeviceTensor
 */

/**
 * The hidden states of a batch, with the work memory of the blocks. It is made for the largest
 * batch; a smaller one uses the first rows.
 * @typedef {DeviceTensor} Hidden
 */

/**
 * Token ids on the device, one for each position of a context.
 * @typedef {Resource & { length: number }} TokenList
 */

/**
 * Keys and values of past tokens, by position, for one attention layer. A layer with a window may keep
 * only the latest ones: `first` is then the first position that is there.
 * @typedef {Resource & { readonly first?: number }} Cache
 */

/**
 * The state of one recurrent layer: a fixed number of values that the tokens so far have left there,
 * and a copy from an earlier position. Computing can go on at both positions, and at 0 from a state of zeros.
 * Positions that are not there are -1.
 * @typedef {Resource & { readonly position: number, readonly savedAt: number }} State  position:
 *   tokens that the state has seen; savedAt: tokens that its copy has seen.
 */

/**
 * A copy of a cache or a state, in a form that does not depend on the device.
 * @typedef {object} Saved
 * @property {number[]} at  A cache has the first position that is there; a state has its position and
 *   that of its copy.
 * @property {Uint8Array} bytes  A cache has the keys of all positions from `at` on, then the values, row
 *   by row in its type; a state has its f32 values, then those of its copy.
 */

/**
 * A block of a model: its settings, its weights by role as loadWeights returned them, and the
 * number of its layer.
 * @template S
 * @typedef {{ settings: S, weights: Weights, layer?: number }} Block
 */

/**
 * Tensors by role: `layers.3.attention.q` is weights.layers[3].attention.q. The type of a leaf
 * depends on the backend.
 * @typedef {Record<string, any>} Weights
 */

/** All weights of a model. @typedef {Resource & { byRole: Weights }} LoadedWeights */

/**
 * The tokens of a batch that a block computes.
 * @typedef {object} Step
 * @property {number} position  Position of the first token in the context.
 * @property {number} start  Row of the first token in Hidden.
 * @property {number} nTokens  Number of tokens.
 * @property {number} seen  Number of positions in the cache when the tokens attend.
 * @property {readonly StepText[]} [texts]  The texts that the rows are, where they are several, as far
 *   as they are still computed. Each sees only itself. The position of the step is then the place of
 *   its first token in the list of tokens, and errors count positions from there. A block that throws
 *   a NumericError has changed nothing, and may be called again.
 * @property {boolean} [alone]  Whether the results of each row must have the bits that they have in a
 *   step of this row only. The texts of such a step have one row each.
 */

/** Rows of a tensor. @typedef {{ start: number, nRows: number }} Rows */

/**
 * Rows of a step that are one text, or the latest tokens of one. The rows are counted from the start of
 * the step.
 * @typedef {Rows & { position: number, cached: number, cache?: any, state?: any }} StepText  position:
 *   of its first token, in its text; cached: the place in the cache of its position 0; cache and state:
 *   those of the block, where each text has its own
 */

/**
 * Rows of a batch, counted from its first row, and the position of the first of them.
 * @typedef {Rows & { position: number, alone?: boolean }} BatchRows  alone: as in Step
 */

/**
 * Settings of a running model.
 * @typedef {object} RunSettings
 * @property {number} contextLength  Most positions of a text; a layer with a window may
 *   cache fewer.
 * @property {KvType} kvType  Type in which keys and values are stored.
 */

/**
 * Memory that a model takes on this backend.
 * @typedef {object} Sizes
 * @property {number} batch  Most tokens of a prompt that are computed at a time; the whole context
 *   if tokens see later tokens.
 * @property {number} part  Most tokens that one block takes; a larger batch is computed in parts.
 * @property {number} logitRows  Most rows of logits that are held at a time.
 * @property {number} kvBytes  Bytes of all caches and states.
 * @property {number} workspaceBytes  Bytes of hidden states, their work memory, and logits.
 */

/**
 * @typedef {object} BackendInfo
 * @property {string} name  'wasm', or the name of another backend.
 * @property {import('./wasm/kernel-types.js').KernelsInfo} [kernels]  Facts about the kernels of
 *   the CPU.
 * @property {import('./gpu/kernels.js').GpuInfo} [gpu]  The GPU and what is used of it.
 * @property {'f32' | 'f16' | 'int8'} [activation]  Least precision of activations in products, if
 *   the backend does not simply take the one that was asked for.
 * @property {number} memoryBytes  All bytes that the backend holds.
 */

/**
 * Chooses tokens. A device that samples by itself reads `options`; other devices call `next`.
 * @typedef {object} TokenSampler
 * @property {Readonly<import('./llama/sampler.js').SamplerOptions>} options  Settings of the
 *   choice.
 * @property {(logits: Float32Array, history: ArrayLike<number>) => number} next  Chooses a token;
 *   may overwrite the logits. The history may be empty unless needsHistory.
 * @property {boolean} [needsHistory]  Whether next() reads the history.
 * @property {(ids: Uint32Array, logits: Float32Array, nVocab: number) => number} [among]  The same
 *   choice from the topK largest logits or more, largest first.
 * @property {boolean} [needsAll]  Whether next() must be called for every token, with all logits, and
 *   no token be chosen ahead of it.
 * @property {number} [draws]  Random numbers drawn so far.
 * @property {(draws: number) => void} [rewind]  Goes on as after so many random numbers.
 */

/**
 * The types of a backend's handles.
 * @typedef {{ hidden: Hidden, tensor: DeviceTensor, cache: Cache, state: State, tokens: TokenList }}
 *   Handles
 */

/**
 * The interface. Each backend has its own types of handles, which callers only pass on.
 * @template {Handles} [H=any]
 * @typedef {object} Backend
 * @property {BackendInfo} info  Facts about the backend.
 * @property {boolean} disposed  True after dispose().
 * @property {boolean} packs  Whether a step may have several texts, also of several contexts.
 * @property {number} [alone]  Most tokens of a step that is `alone`; a backend without it has no such
 *   steps.
 * @property {(type: string) => import('./wasm/kernel-types.js').Service | GpuService} servedBy
 *   How products with weights of a type are computed.
 *
 * @property {(plan: Plan, tensors: readonly GgufTensor[], settings: RunSettings) => string[]} lacks
 *   Names everything in a model that this backend cannot do; empty if it can run the model. Called
 *   before a weight is read.
 * @property {(plan: Plan, settings: RunSettings) => Sizes} sizes  The memory that the model will
 *   take.
 * @property {(pieces: readonly number[]) => Promise<number>} fits  How many pieces of memory, given
 *   in bytes and taken in order, the device has room for.
 * @property {(gguf: GgufFile, plan: Plan, tensors: readonly PlannedTensor[],
 *   options: LoadOptions) => Promise<LoadedWeights>} loadWeights  Loads all tensors, or on a
 *   failure none. Roles that the plan shares are filled in.
 *
 * @property {(shape: { nRows: number, nCols: number }) => H['tensor']} tensor  Makes a tensor of
 *   zeros.
 * @property {(plan: Plan, sizes: Pick<Sizes, 'batch' | 'part'>) => H['hidden']} hidden  Makes
 *   hidden states for batches and parts of up to these numbers of tokens.
 * @property {(length: number) => H['tokens']} tokens  Makes a list of zeros.
 * @property {(attention: AttentionSettings, settings: RunSettings, layer: number) => H['cache']}
 *   cache  Makes an empty cache for one layer.
 * @property {(recurrent: RecurrentSettings, settings: RunSettings, layer: number) => H['state']}
 *   state  Makes the state of one layer.
 * @property {(part: H['cache'] | H['state'], nTokens: number) => Promise<Saved>} save  Copies a cache,
 *   as far as the first so many positions go, or a state, after all work queued before.
 * @property {(part: H['cache'] | H['state'], saved: Saved, nTokens: number) => Promise<void>} restore
 *   Fills an unused cache or state. A copy that does not fit is a ShapeError.
 *
 * @property {(tokens: H['tokens'], x: H['hidden'], embedding: Block<EmbeddingSettings>,
 *   at: Step) => void} embed  x = embeddings of the tokens at these positions. What layers get for a
 *   token beside x stays with x.
 * @property {(x: H['hidden'], attention: Block<AttentionSettings>, cache: H['cache'], at: Step) =>
 *   void} project  Computes queries, keys and values of x. Keys and values go into the cache,
 *   queries stay with x. A number that the cache cannot store is an error. A layer that reads the
 *   keys and values of an earlier one comes with the cache of that one, and stores nothing.
 * @property {(x: H['hidden'], attention: Block<AttentionSettings>, cache: H['cache'], at: Step) =>
 *   void} attend  x += attention of these queries over the cache.
 * @property {(x: H['hidden'], recurrent: Block<RecurrentSettings>, state: H['state'], at: Step) =>
 *   void} recur  x += recurrent block of x, which goes on from the state at this position, and
 *   leaves it after the last token. Before the last of several tokens it keeps a copy of the
 *   state. In a layer with attention it is called between project and attend. A state that is not
 *   there is an error.
 * @property {(x: H['hidden'], feed: Block<FeedSettings>, at: Step) => void} feed  x += feed-forward
 *   block of x.
 * @property {(x: H['hidden'], head: Block<HeadSettings>, logits: H['tensor'], rows: BatchRows) =>
 *   void} head  First rows of `logits` = logits of some rows of x. A NaN or infinity among them is
 *   an error.
 * @property {(x: H['hidden'], at: Step, place: Omit<Place, 'position'>) => void} check  Checks rows
 *   of x; a NaN or infinity is an error.
 * @property {(sampler: TokenSampler) => number} [ahead]  Tokens that may be computed ahead of the
 *   one that is read: pick leaves a token on the device, and embed finds it there. 0: each token is
 *   read before the next one is computed. A backend that queues its work has this method; one without
 *   it has finished when a call returns.
 * @property {(logits: H['tensor'], row: number, tokens: H['tokens'], sampler: TokenSampler,
 *   position: number) => void} pick  Token at `position` = the sampler's choice from a row of
 *   logits. The tokens before it are the text so far.
 *
 * @property {(from: H['tensor'] | H['hidden'], rows?: Rows) => Promise<Float32Array>} read  Reads a
 *   copy of some rows, by default all, after all work queued before.
 * @property {(x: H['hidden'], head: Block<HeadSettings>, rows: BatchRows) => Promise<Float32Array>}
 *   readStates  Reads some rows of x after the norm of the head: the input of the output matrix.
 * @property {(x: Float32Array, matrix: any, bias?: any) => Promise<Float32Array>} multiply  Rows of
 *   values times a matrix of the weights, with a bias added to each row.
 * @property {(to: H['tensor'] | H['hidden'], row: number, values: Float32Array) => void} write
 *   Sets values from a row on, for example those that another backend has computed.
 * @property {(from: H['tokens'], start: number, n: number) => Promise<Uint32Array>} readTokens
 *   Reads a copy of some tokens, after all work queued before and before all that is queued
 *   later.
 * @property {(to: H['tokens'], start: number, ids: ArrayLike<number>) => void} writeTokens  Sets
 *   the tokens from a position on.
 * @property {() => void} flush  Starts queued work that is waiting for more.
 * @property {() => Promise<void>} idle  Waits until all queued work is done.
 * @property {() => void} dispose  Ends the backend, with everything it owns.
 */

/** Products on a GPU. @typedef {{ isa: 'webgpu', activation: 'f32' | 'f16' | 'int8' }} GpuService */

/**
 * @typedef {object} LoadOptions
 * @property {number} otherBytes  Bytes that the model will need in addition to its weights.
 * @property {((progress: { loaded: number, total: number }) => void) | undefined} [onProgress]
 *   Called with bytes of weights.
 * @property {AbortSignal | undefined} [signal]  Aborts the loading.
 */

/**
 * Settings of a model, for opening a backend. ownsKernels: whether dispose() ends the kernels.
 * @typedef {{ activation: import('./wasm/selftest.js').Activation, kvType: KvType,
 *   ownsKernels?: boolean }} BackendSettings
 */

/**
 * Kernels of a device other than the CPU have a method of this name: (settings: BackendSettings) =>
 * Promise<Backend>.
 * @type {unique symbol}
 */
export const openBackend = Symbol('openBackend');
