/* The interface between a model and a device. The runner (js/llama) computes through it alone, so a model runs on whatever implements
 * it: js/wasm/backend.js is the CPU, tests/helpers/reference-backend.js plain float64 JavaScript.
 *
 * The unit is a block of a model, not a single operation: the CPU makes `attend` of some ten operations, a GPU of a few dispatches.
 * A block comes with the settings of its layer, so no backend asks for an architecture's name.
 *
 * Blocks queue and return; on the CPU they are done by then. Only reading, idling and loading are awaited. Errors of arguments are
 * thrown at once, those of the device and of numbers (NumericError) at once or by the next thing that is awaited. Handles (tensors, caches) say `nRows`, `nCols` or
 * nothing, and are given back with free(); where their values lie is the backend's own affair. */

/** @typedef {import('./gguf/index.js').GgufFile} GgufFile */
/** @typedef {import('./gguf/file.js').GgufTensor} GgufTensor */
/** @typedef {import('./llama/plan.js').Plan} Plan */
/** @typedef {import('./llama/plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('./llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('./llama/plan.js').EmbeddingSettings} EmbeddingSettings */
/** @typedef {import('./llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('./llama/numeric.js').Place} Place */
/** @typedef {import('./wasm/kv-cache.js').KvType} KvType */

/**
 * Anything that takes memory on the device.
 * @typedef {object} Resource
 * @property {boolean} freed  true after free(), and once the backend is disposed
 * @property {() => void} free  gives the memory back
 */

/**
 * f32 numbers on the device, row by row.
 * @typedef {Resource & { nRows: number, nCols: number }} DeviceTensor
 */

/**
 * The hidden states of a batch, with whatever memory the blocks need beside them. Made for the largest batch; a smaller one uses
 * the first rows.
 * @typedef {DeviceTensor} Hidden
 */

/** Token ids on the device, one for each position of a context. @typedef {Resource & { length: number }} TokenList */

/** The keys and values that an attention layer keeps of past tokens, by position. @typedef {Resource} Cache */

/**
 * A part of a model: its settings, its weights by role, as loadWeights gave them, and the number of its layer.
 * @template S
 * @typedef {{ settings: S, weights: Weights, layer?: number }} Block
 */

/**
 * Tensors by role: `layers.3.attention.q` is weights.layers[3].attention.q. What a leaf is, the backend knows.
 * @typedef {Record<string, any>} Weights
 */

/** All weights of a model. @typedef {Resource & { byRole: Weights }} LoadedWeights */

/**
 * The tokens that a block computes: some of a batch.
 * @typedef {object} Step
 * @property {number} position  of the first of them, in the context
 * @property {number} start  its row in Hidden
 * @property {number} nTokens  how many
 * @property {number} seen  positions that are in the cache when they attend
 */

/** Rows of a tensor. @typedef {{ start: number, nRows: number }} Rows */
/** Rows of a batch, counted from its first, and the position of the first of them. @typedef {Rows & { position: number }} BatchRows */

/**
 * How a model is to be run.
 * @typedef {object} RunSettings
 * @property {number} contextLength  positions of the caches
 * @property {KvType} kvType  what keys and values are stored as
 */

/**
 * The memory that a model takes on this backend, in bytes and rows.
 * @typedef {object} Sizes
 * @property {number} batch  tokens of a prompt that are computed at a time, at most: all where a token sees those behind it
 * @property {number} part  tokens that one block takes, at most: a batch is computed in such parts
 * @property {number} logitRows  rows of logits that are held at a time, at most
 * @property {number} kvBytes  all caches
 * @property {number} workspaceBytes  hidden states, their workspace, logits
 */

/**
 * @typedef {object} BackendInfo
 * @property {string} name  'wasm', and what else there is
 * @property {import('./wasm/kernel-types.js').KernelsInfo} [kernels]  of the CPU: what was chosen and why
 * @property {number} memoryBytes  that the backend holds in all
 */

/**
 * Chooses tokens. A device that samples by itself reads `options`; another one calls `next`.
 * @typedef {object} TokenSampler
 * @property {Readonly<import('./llama/sampler.js').SamplerOptions>} options  how tokens are chosen
 * @property {(logits: Float32Array, history: ArrayLike<number>) => number} next  may change the logits
 */

/**
 * The kinds of handles of a backend.
 * @typedef {{ hidden: Hidden, tensor: DeviceTensor, cache: Cache, tokens: TokenList }} Handles
 */

/**
 * The interface itself. A backend names its own kinds of handles; whoever uses one takes them as they come.
 * @template {Handles} [H=any]
 * @typedef {object} Backend
 * @property {BackendInfo} info  what it is and how it runs
 * @property {boolean} disposed  true after dispose()
 * @property {(type: string) => import('./wasm/kernel-types.js').Service} servedBy  how products with weights of a type are computed
 *
 * @property {(plan: Plan, tensors: readonly GgufTensor[], settings: RunSettings) => string[]} lacks  what this backend cannot do of a
 *   model, each by name; empty: it can run it. Asked before a weight is read
 * @property {(plan: Plan, settings: RunSettings) => Sizes} sizes  what the model will take
 * @property {(gguf: GgufFile, plan: Plan, tensors: readonly PlannedTensor[], options: LoadOptions) => Promise<LoadedWeights>} loadWeights
 *   all of the tensors, or on any failure none; roles that the plan shares are filled in
 *
 * @property {(shape: { nRows: number, nCols: number }) => H['tensor']} tensor  zeros
 * @property {(plan: Plan, sizes: Pick<Sizes, 'batch' | 'part'>) => H['hidden']} hidden  for batches and parts of up to so many
 *   tokens
 * @property {(length: number) => H['tokens']} tokens  zeros
 * @property {(attention: AttentionSettings, settings: RunSettings) => H['cache']} cache  an empty cache for one layer
 *
 * @property {(tokens: H['tokens'], x: H['hidden'], embedding: Block<EmbeddingSettings>, at: Step) => void} embed  x becomes the embeddings
 *   of the tokens at these positions
 * @property {(x: H['hidden'], attention: Block<AttentionSettings>, cache: H['cache'], at: Step) => void} project  queries, keys and
 *   values of x; keys and values go into the cache, queries stay with x. A number that the cache cannot store is an error
 * @property {(x: H['hidden'], attention: Block<AttentionSettings>, cache: H['cache'], at: Step) => void} attend  x += attention of
 *   these queries over the cache
 * @property {(x: H['hidden'], feed: Block<FeedSettings>, at: Step) => void} feed  x += the feed-forward block of x
 * @property {(x: H['hidden'], head: Block<HeadSettings>, logits: H['tensor'], rows: BatchRows) => void} head  logits of some rows of x
 *   become the first rows of `logits`. A NaN or infinity among them is an error
 * @property {(x: H['hidden'], at: Step, place: Omit<Place, 'position'>) => void} check  a NaN or infinity in these rows of x is an error
 * @property {(logits: H['tensor'], row: number, tokens: H['tokens'], sampler: TokenSampler, position: number) => void} pick  the token
 *   at `position` becomes the one that the sampler chooses from a row of logits; those before are the text so far
 *
 * @property {(from: H['tensor'] | H['hidden'], rows?: Rows) => Promise<Float32Array>} read  a copy, after everything that was
 *   queued before; by default all rows
 * @property {(x: H['hidden'], head: Block<HeadSettings>, rows: BatchRows) => Promise<Float32Array>} readStates  some rows of x as the
 *   head's product sees them: after its norm
 * @property {(to: H['tensor'] | H['hidden'], row: number, values: Float32Array) => void} write  sets rows from one on: what another
 *   backend has computed, for example
 * @property {(from: H['tokens'], start: number, n: number) => Promise<Uint32Array>} readTokens  a copy likewise
 * @property {(to: H['tokens'], start: number, ids: ArrayLike<number>) => void} writeTokens  sets the tokens from a position on
 * @property {() => void} flush  begins what is queued, where that waits for more
 * @property {() => Promise<void>} idle  everything that was queued is done
 * @property {() => void} dispose  ends the backend, with all that it holds of its own
 */

/**
 * @typedef {object} LoadOptions
 * @property {number} otherBytes  that the model will need beside its weights
 * @property {((progress: { loaded: number, total: number }) => void) | undefined} [onProgress]  bytes of weights
 * @property {AbortSignal | undefined} [signal]  ends the loading
 */

export {};
