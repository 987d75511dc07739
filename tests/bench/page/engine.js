/**
 * The interface of the engines on the page.
 *
 * @typedef {object} Run  the numbers of one prompt
 * @property {number} promptTokens  tokens of the prompt that were computed
 * @property {number} promptMs  as the engine reports it
 * @property {number} decodedTokens
 * @property {number} decodeMs  as the engine reports it, for all decoded tokens but the first
 * @property {number} firstMs  from the call to the first text, by the caller's clock
 */
/** @typedef {{ id: number, logProbability: number }} Likely  a token */
/**
 * @typedef {object} Settings
 * @property {number} threads
 * @property {number} nContext  positions of the context
 * @property {boolean} gpu  Whether all layers run on the GPU.
 */
/**
 * @typedef {object} Engine
 * @property {(url: string, settings: Settings) => Promise<{ loadMs: number, threads: number,
 *   note: string }>} load
 * @property {(prompt: string, maxTokens: number) => Promise<Run>} run
 * @property {(prompt: string, nLikely: number) => Promise<Likely[]>} likely  the most likely next
 *   tokens, the first one first
 * @property {() => Promise<void>} unload
 */
export {};
