/* Products for many tokens: y[token][row] = sum of x[token][column] * W[row][column].
 *
 * A workgroup computes a tile of rows and tokens. Step by step it takes some pieces of 16 columns
 * of both sides into its memory, decodes each piece once, and multiplies; an invocation adds up
 * 4 x 4 outputs or more in registers. The columns of a piece are in the order of the weight's
 * lanes, on both sides (types.js). */

import { float, shader, up16 } from '../shader.js';
import { decoder, prelude, rowBlocks, WGSL_TYPES } from './types.js';

/** @typedef {import('../shader.js').Shader} Shader */
/** @typedef {import('./types.js').Unit} Unit */

/**
 * What becomes of a sum, and where it goes.
 * @typedef {object} Epilogue
 * @property {'store' | 'add'} [epilogue]  y = value, or y += residualScale * value
 * @property {number} [residualScale]
 * @property {number | undefined} [bias]  where the bias of the first row is in `vectors`; default:
 *   there is none
 * @property {number} [yRowOffset]  where the rows of the weight begin in a row of y
 * @property {number} [yStride]  of y, default up16(nRows)
 * @property {boolean} [fromZero]  the first token goes to row 0 of y, not to row step.start
 */

/**
 * @typedef {object} TileShape
 * @property {number} [tileRows]  32, 64 or 128
 * @property {number} [tileTokens]  16, 32, 64 or 128
 */

/**
 * @typedef {object} MatmulParts
 * @property {Unit} unit
 * @property {number} [depth]  pieces of 16 columns a step
 * @property {boolean} [f16]  both sides are f16 in workgroup memory, sums stay f32; needs
 *   `shader-f16`
 */

/** @typedef {MatmulParts & TileShape & Epilogue} MatmulOptions */

/** 0, 1, ... n - 1. @param {number} n */
export const count = (n) => Array.from({ length: n }, (_, i) => i);

/**
 * How the invocations of a workgroup share a tile: each has `rows` x `tokens` outputs, nx and ny
 * apart. 32 neighbouring invocations are 8 x 4 of them, so that a read of workgroup memory has few
 * different addresses.
 * @param {TileShape} shape
 */
export function tiling({ tileRows = 64, tileTokens = 64 }) {
  const outputs = (tileRows * tileTokens) / 16;
  const rows = outputs > 256 ? 8 : 4;
  const tokens = outputs > 512 ? 8 : 4;
  const [nx, ny] = [tileRows / rows, tileTokens / tokens];
  if (nx % 8 || ny % 4) throw new RangeError(`tiles of ${tileRows} x ${tileTokens}: 32 x 16 is the smallest`);
  return {
    tileRows,
    tileTokens,
    rows,
    tokens,
    nx,
    ny,
    invocations: nx * ny,
    size: [8, ny, nx / 8],
    lines: `
  let g = lid.y + ${ny}u * lid.z;
  let lx = lid.x + 8u * lid.z;
  let ly = lid.y;
  let row0 = wid.y * ${tileRows}u;
  let token0 = wid.x * ${tileTokens}u;`,
  };
}

/**
 * How outputs are stored: a function `put(token, row, value)`, and the bindings that it needs.
 * Tokens are counted in the batch.
 * @param {number} nRows
 * @param {Epilogue} how
 */
function output(nRows, how) {
  const { epilogue = 'store', residualScale = 1, bias } = how;
  const { yRowOffset = 0, yStride = up16(nRows), fromZero = false } = how;
  const value = `value${bias === undefined ? '' : ` + vectors[row + ${bias}u]`}`;
  const at = `(${fromZero ? '' : 'step.start + '}token) * ${yStride}u + ${yRowOffset}u + row`;
  const store = epilogue === 'add' ? `y[at] += ${float(residualScale)} * (${value});` : `y[at] = ${value};`;
  return {
    bindings: {
      ...(bias !== undefined && { vectors: 'read array<f32>' }),
      y: 'read_write array<f32>',
    },
    put: `
fn put(token: u32, row: u32, value: f32) { let at = ${at}; ${store} }`,
  };
}

/**
 * How a tile is stored: functions, bindings, and the statements of main. The variables sum_Q_T are
 * vec4f: rows 4 Q to 4 Q + 3 of an invocation's token T.
 * @param {ReturnType<typeof tiling>} tile
 * @param {number} nRows
 * @param {Epilogue} how
 * @param {string} [scale]  what the sums of `token` are multiplied by
 */
export function stores(tile, nRows, how, scale = '') {
  const { bindings, put } = output(nRows, how);
  const quads = count(tile.rows / 4);
  const tokens = count(tile.tokens).map(
    (t) => `
  put_token(token0 + ly + ${tile.ny * t}u, row0 + lx, ${quads.map((q) => `sum_${q}_${t}`).join(', ')});`,
  );
  return {
    bindings,
    functions: `${put}
fn put_token(token: u32, row: u32, ${quads.map((q) => `q${q}: vec4f`).join(', ')}) {
  if (token >= step.n_tokens) { return; }
  ${scale && `let scale = ${scale};`}
  ${quads
    .flatMap((q) => count(4).map((i) => ({ sum: `q${q}[${i}]`, at: `row + ${tile.nx * (4 * q + i)}u` })))
    .map(({ sum, at }) => `if (${at} < ${nRows}u) { put(token, ${at}, ${scale && 'scale * '}${sum}); }`)
    .join('\n  ')}
}`,
    lines: tokens.join(''),
  };
}

/** The sums of an invocation, zeros. @param {ReturnType<typeof tiling>} tile */
export const sums = ({ rows, tokens }) =>
  count(rows / 4)
    .flatMap((q) => count(tokens).map((t) => `var sum_${q}_${t} = vec4f();`))
    .join(' ');

/**
 * Y = X W^T for the tokens of a step.
 *
 *   w        the weight
 *   x        [row][up16(nCols)] f32, from row step.start on
 *   x_scale  [row] of scaleActivations(), only with f16: x is divided by it, and the sums are
 *            multiplied by it. It is a power of two, so that only the rounding to f16 loses bits,
 *            and no activation overflows. A weight beyond 65,504 overflows
 *   y        see Epilogue
 * @param {MatmulOptions} options
 * @returns {Shader}
 */
export function matmul(options) {
  const { unit, depth = 2, f16 = false } = options;
  const { type, nRows, nCols } = unit;
  const { lanes, blockValues } = WGSL_TYPES[type];
  const tile = tiling(options);
  const { tileRows, tileTokens, nx, ny, invocations } = tile;
  const store = stores(tile, nRows, options, f16 ? 'x_scale[step.start + token]' : '');
  const vec = f16 ? 'vec4h' : 'vec4f';
  const nBlocks = rowBlocks(unit);
  const nPieces = nBlocks * lanes;
  const wPieces = tileRows * depth;
  const allPieces = wPieces + tileTokens * depth;

  // Eight neighbouring invocations take a piece of eight rows, the next eight the next piece of
  // the same rows: they read neighbouring words of the weight, and write to different banks of
  // workgroup memory. `g` counts such eights.
  const tail = nPieces % depth ? `if (i >= ${nPieces}u) { return mat4x4f(); }` : '';
  const stage = (/** @type {string} */ side, /** @type {number} */ first, /** @type {number} */ n) => `
fn stage_${side}(r: u32, h: u32, p: mat4x4f) {
  let at = ${first}u + h * ${4 * n}u + r;
  ${count(4)
    .map((k) => `tile[at + ${k * n}u] = ${vec}(p[${k}]);`)
    .join(' ')}
}`;
  const slots = count(Math.ceil(allPieces / invocations)).map((q) => {
    const [begin, end] = [q * invocations, (q + 1) * invocations];
    const place = (/** @type {number} */ first) =>
      `lid.x + (g + ${begin / 8}u - ${first / 8}u) / ${depth}u * 8u, (g + ${begin / 8}u - ${first / 8}u) % ${depth}u`;
    const [ofW, ofX] = [place(0), place(wPieces)];
    const either = (/** @type {string} */ w, /** @type {string} */ x) => {
      const guarded = end > allPieces ? `if (g < ${(allPieces - begin) / 8}u) { ${x} }` : `{ ${x} }`;
      if (begin >= wPieces) return guarded;
      return end <= wPieces ? w : `if (g < ${(wPieces - begin) / 8}u) { ${w} } else ${guarded}`;
    };
    return {
      fetch: `var p${q}: mat4x4f; ${either(`p${q} = fetch_w(${ofW}, s, row0);`, `p${q} = fetch_x(${ofX}, s, token0);`)}`,
      stage: either(`stage_w(${ofW}, p${q});`, `stage_x(${ofX}, p${q});`),
    };
  });
  const lines = (/** @type {'fetch' | 'stage'} */ what) => slots.map((slot) => slot[what]).join('\n    ');
  const quads = count(tile.rows / 4);
  const rowsOf = (/** @type {number} */ q) =>
    `transpose(mat4x4f(${count(4)
      .map((i) => `vec4f(tile[a + ${nx * (4 * q + i)}u])`)
      .join(', ')}))`;
  const multiplied = count(tile.tokens).map((t) => {
    const fmas = quads.flatMap((q) => count(4).map((k) => `sum_${q}_${t} += w${q}[${k}] * v${t}[${k}];`));
    return `let v${t} = vec4f(tile[b + ${ny * t}u]); ${fmas.join(' ')}`;
  });

  return shader({
    name: `matmul ${type} ${nRows}x${nCols}, tiles of ${tileRows}x${tileTokens}`,
    enable: f16 ? ['f16'] : [],
    bindings: {
      w: 'read array<u32>',
      x: 'read array<vec4f>',
      ...(f16 && { x_scale: 'read array<f32>' }),
      ...store.bindings,
    },
    step: true,
    workgroup: { tile: `array<${vec}, ${4 * allPieces}>` },
    size: tile.size,
    code: `${prelude([type])}${decoder(unit)}${store.functions}
fn fetch_w(r: u32, h: u32, s: u32, row0: u32) -> mat4x4f {
  let i = s + h; ${tail}
  return decode_0(min(row0 + r, ${nRows - 1}u) * ${nBlocks}u + i / ${lanes}u, i % ${lanes}u);
}
fn fetch_x(r: u32, h: u32, s: u32, token0: u32) -> mat4x4f {
  let i = s + h; ${tail}
  let row = step.start + min(token0 + r, step.n_tokens - 1u);
  let at = row * ${up16(nCols) / 4}u + i / ${lanes}u * ${blockValues / 4}u + runs_0(i % ${lanes}u);
  ${f16 ? `let inverse = bitcast<f32>(${254 << 23}u - bitcast<u32>(x_scale[row]));` : ''}
  return mat4x4f(${count(4)
    .map((k) => `x[at[${k}]]${f16 ? ' * inverse' : ''}`)
    .join(', ')});
}${stage('w', 0, tileRows)}${stage('x', 4 * wPieces, tileTokens)}
@compute
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u) {${tile.lines}
  ${sums(tile)}
  for (var s = 0u; s < ${nPieces}u; s += ${depth}u) {
    // Fetched before the barrier: the pieces are on their way while others still multiply.
    ${lines('fetch')}
    workgroupBarrier();
    ${lines('stage')}
    workgroupBarrier();
    for (var h = 0u; h < ${depth}u; h++) {
      // Short enough for compilers to unroll.
      for (var k = 0u; k < 4u; k++) {
        let a = (4u * h + k) * ${tileRows}u + lx;
        let b = ${4 * wPieces}u + (4u * h + k) * ${tileTokens}u + ly;
        ${[...quads.map((q) => `let w${q} = ${rowsOf(q)};`), ...multiplied].join('\n        ')}
      }
    }
  }
  ${store.lines}
}`,
  });
}

/**
 * Workgroups of matmul.
 * @param {MatmulOptions} options
 * @param {number} nTokens
 * @returns {[number, number, number]}
 */
export const matmulGroups = ({ unit, tileRows = 64, tileTokens = 64 }, nTokens) => [
  Math.ceil(nTokens / tileTokens),
  Math.ceil(unit.nRows / tileRows),
  1,
];
