/* Logits after each token of a text. */

/**
 * The function behind Llama.logits.
 * @param {import('./model.js').Parts} parts
 * @param {readonly number[]} tokens
 * @param {import('./pause.js').Pace} pace
 * @returns {Promise<Float32Array>}
 */
export async function allLogits({ context, plan: { nVocab } }, tokens, pace) {
  const all = new Float32Array(tokens.length * nVocab);
  context.clear();
  await context.extend(tokens, pace, async (start, n, decoder) => {
    for (let row = 0; row < n; row += decoder.logitRows) {
      const nRows = Math.min(decoder.logitRows, n - row);
      all.set(await decoder.logits(row, nRows, pace), (start + row) * nVocab);
      pace.check();
    }
  });
  return all;
}
