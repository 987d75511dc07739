/**
 * What an engine of the page does.
 *
 * @typedef {object} Run  of one prompt
 * @property {number} promptTokens  that were computed
 * @property {number} promptMs  what the engine says
 * @property {number} decodedTokens
 * @property {number} decodeMs  what the engine says, for all but the first of them
 * @property {number} firstMs  from the call to the first text, by the caller's clock
 */
/** @typedef {{ id: number, logProbability: number }} Likely  a token */
/**
 * @typedef {object} Engine
 * @property {(url: string, threads: number, nContext: number) => Promise<{ loadMs: number, threads: number, note: string }>} load
 * @property {(prompt: string, maxTokens: number) => Promise<Run>} run
 * @property {(prompt: string, nLikely: number) => Promise<Likely[]>} likely  the most likely next tokens, the first one first
 * @property {() => Promise<void>} unload
 */
export {};
