/* The methods of Kernels that combine values one by one, and those of recurrent layers. */

/** @typedef {import('./kernel-types.js').Gate} Gate */
/** @typedef {import('./operands.js').Floats} Floats */

/** A part of Kernels: operations on values, without weights in blocks. */
export class ValueKernels {
  #core;
  #run;

  /**
   * @hideconstructor
   * @param {import('./core.js').Core} core
   * @param {typeof import('./operations.js')} operations
   */
  constructor(core, operations) {
    this.#core = core;
    this.#run = operations;
  }

  /**
   * a + b.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} a
   * @param {Floats} b  as many values as a, or as a row of a Tensor a: it is added to every row
   * @param {{ out?: U }} [options]  out may be a, or b where it is as long
   * @returns {NoInfer<U>}
   */
  add(a, b, options) {
    return this.#run.add(this.#core, a, b, options);
  }

  /**
   * a + scale * b; the product is rounded to f32 before it is added.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} a
   * @param {Floats} b  as many values as a
   * @param {number} scale  rounded to f32
   * @param {{ out?: U }} [options]  out may be a or b
   * @returns {NoInfer<U>}
   */
  addScaled(a, b, scale, options) {
    return this.#run.addScaled(this.#core, a, b, scale, options);
  }

  /**
   * x * factor.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {number} factor  rounded to f32
   * @param {{ out?: U }} [options]  out may be x
   * @returns {NoInfer<U>}
   */
  scale(x, factor, options) {
    return this.#run.scale(this.#core, x, factor, options);
  }

  /**
   * act(gate) * up, the activation of a gated feed-forward block.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} gate
   * @param {Floats} up  as many values as gate
   * @param {{ act?: Gate | 'sigmoid', out?: U }} [options]  act: default 'silu'; out may be gate or
   *   up
   * @returns {NoInfer<U>}
   */
  gated(gate, up, options) {
    return this.#run.gated(this.#core, gate, up, options);
  }

  /**
   * a * b, value by value.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} a
   * @param {Floats} b  as many values as a
   * @param {{ out?: U }} [options]  out may be a or b
   * @returns {NoInfer<U>}
   */
  multiply(a, b, options) {
    return this.#run.multiply(this.#core, a, b, options);
  }

  /**
   * Causal convolution of each channel over the tokens: y[t][c] = act(bias[c] + sum_j weight[c][j] *
   * x[t - length + 1 + j][c]). The state has the tokens before x; afterwards it has those before the
   * token that follows x.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x  nTokens * nChannels values
   * @param {Floats} weight  nChannels * length values; length is 2 to 16
   * @param {Floats} state  (length - 1) * nChannels values, the oldest token first; changed
   * @param {import('./kernel-types.js').ConvOptions<U>} [options]
   * @returns {NoInfer<U>}
   * @throws {import('../errors.js').ShapeError} a length does not fit the shape; the message has both
   *   numbers
   */
  causalConv(x, weight, state, options) {
    return this.#run.causalConv(this.#core, x, weight, state, options);
  }

  /**
   * Runs tokens through a gated delta net: for each value head, whose state S it reads and writes,
   * S = decay * S; r = sigmoid(beta) * (v - S^T k); S = S + k r^T; o = S^T q. There decay is
   * e^(a * softplus(alpha + dtBias)), q and k are divided by sqrt(sum of squares + eps), and q by
   * sqrt(keySize) too. More than 8 tokens are computed together, up to 32 at once.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} qkv  a row a token: queries and keys of all key heads, values of all value heads
   * @param {import('./kernel-types.js').DeltaGates} gates
   * @param {import('./handles.js').Tensor} state  nValueHeads * keySize rows of valueSize values; both
   *   sizes are multiples of 8 up to 256
   * @param {import('./kernel-types.js').DeltaOptions<U>} [options]
   * @returns {NoInfer<U>} [nTokens][nValueHeads][valueSize]
   * @throws {import('../errors.js').ShapeError} a length does not fit the shape; the message has both
   *   numbers
   */
  deltaNet(qkv, gates, state, options) {
    return this.#run.deltaNet(this.#core, qkv, gates, state, options);
  }

  /**
   * Runs tokens through the selective scan of Mamba-2. A token changes the state h of each head,
   * and reads it: with step = softplus(dt + dtBias), h[n][p] = e^(step * a) * h[n][p] +
   * B[n] * step * x[p], and y[p] = sum_n C[n] * h[n][p] + d * x[p]. Head i reads B and C of group
   * floor(i / (nHeads / nGroups)). Tokens are computed 16 at a time, the
   * rest one by one.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x  a row a token: x of all heads, B of all groups, C of all groups
   * @param {import('./kernel-types.js').ScanSteps} steps
   * @param {import('./handles.js').Tensor} state  nHeads * stateSize rows of headSize values; changed
   * @param {{ nGroups?: number, out?: U }} [options]  nGroups: default 1; out overlaps nothing else
   * @returns {NoInfer<U>} [nTokens][nHeads][headSize]
   * @throws {import('../errors.js').ShapeError} a length does not fit the shape; the message has both
   *   numbers
   */
  ssmScan(x, steps, state, options) {
    return this.#run.ssmScan(this.#core, x, steps, state, options);
  }
}
