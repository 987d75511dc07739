/* Products for many tokens in integers: matmul() with activations of quantizeActivations(), four products an instruction.
 *
 * Needs `dot4I8Packed`. A step takes lanes that share their scales, so that run k of all of them is one integer sum: it is
 * exact, and is scaled by the weight's scale and the activations' one before it is added up in f32. A weight's minimums
 * are multiplied by the sum of the activations. */

import { shader, up16 } from '../shader.js';
import { count, stores, sums, tiling } from './matmul.js';
import { rowScales, SCALE_COLS } from './quantize.js';
import { decoder, prelude, rowBlocks, WGSL_TYPES } from './types.js';

/** @typedef {import('../shader.js').Shader} Shader */
/** @typedef {import('./matmul.js').Epilogue} Epilogue */
/** @typedef {import('./matmul.js').TileShape} TileShape */
/** @typedef {import('./types.js').Unit} Unit */

/**
 * The unit is of a coded type; splitK as in matmul(), whose sumTiles() adds up the parts.
 * @typedef {{ unit: Unit, splitK?: number } & TileShape & Epilogue} MatmulInt8Options
 */

/**
 * Types whose values are scale * (code - centre): a minimum is so many scales. Their codes are centred when they are
 * staged, so there is no minimum to multiply. With a centre of 128, codes need all bits of a byte.
 * @type {Record<string, number>}
 */
const CENTRES = {
  Q4_0: 8,
  Q5_0: 16,
  IQ4_NL: 128,
  MXFP4: 12,
  Q3_K: 4,
  Q6_K: 32,
  IQ4_XS: 128,
  TQ1_0: 1,
  TQ2_0: 1,
};

/** Codes of a piece as signed bytes, in WGSL. @param {number | undefined} centre */
function signedCodes(centre) {
  if (centre === undefined) return 'p.codes';
  const high = 'vec4u(0x80808080u)';
  if (centre === 128) return `p.codes ^ ${high}`;
  // No byte borrows from the next one while its highest bit is set.
  return `((p.codes | ${high}) - vec4u(${centre * 0x01010101}u)) ^ ${high}`;
}

/** Words between the runs of a tile, so that four runs of a token lie in different banks. */
const PAD = 8;

/**
 * Y = X W^T for the tokens of a step; workgroups are those of matmulGroups().
 *
 *   w        the weight
 *   codes    [row][up16(nCols) / 4] words, from row step.start on
 *   scales   [row][nCols / 32] f32
 *   y        as in matmul()
 * @param {MatmulInt8Options} options
 * @returns {Shader}
 */
export function matmulInt8(options) {
  const { unit, splitK = 1 } = options;
  const { type, nRows, nCols } = unit;
  const { lanes, blockValues, share, signed, coded } = WGSL_TYPES[type];
  const centre = CENTRES[type];
  const hasMin = !signed && centre === undefined;
  if (!coded) throw new TypeError(`${type} has no codes: integer products need a quantised weight`);
  const tile = tiling(options);
  const { tileRows, tileTokens, nx, ny, invocations } = tile;
  const store = stores(tile, nRows, splitK, options);
  const nLanes = Math.min(share, 4);
  const nBlocks = rowBlocks(unit);
  const nPieces = nBlocks * lanes;
  const perSplit = nLanes * Math.ceil(nPieces / nLanes / splitK);
  const wRun = tileRows * nLanes + PAD;
  const xRun = tileTokens * nLanes + PAD;
  const runs = count(4);
  const words = count(nLanes);
  const quads = count(tile.rows / 4);

  // Slots of work for all invocations: what slot q does with item `j`, of n.
  const slots = (/** @type {number} */ n, /** @type {(j: string, q: number) => string} */ does) =>
    count(Math.ceil(n / invocations)).map((q) => {
      const code = does(`(tid + ${q * invocations}u)`, q);
      return (q + 1) * invocations <= n ? code : `if (tid < ${n - q * invocations}u) { ${code} }`;
    });
  const wItems = tileRows * nLanes;
  const xItems = tileTokens * 4;
  const fetchW = slots(wItems, (j, q) => `p${q} = fetch_w(${j}, s, row0);`);
  const fetchX = slots(xItems, (j, q) => `c${q} = fetch_x(${j}, s, token0);`);
  const stageW = slots(wItems, (j, q) => `stage_w(${j}, p${q});`);
  const stageX = slots(xItems, (j, q) => `stage_x(${j}, c${q});`);
  const lines = (/** @type {string[]} */ ...code) => code.join('\n    ');

  const each = (/** @type {number} */ q, /** @type {string} */ part) =>
    count(4)
      .map((i) => `f${q}_${i}${part}`)
      .join(', ');
  const rowLines = quads.flatMap((q) => {
    const codes = count(4).flatMap((i) =>
      words.map(
        (h) =>
          `let w${q}_${i}_${h} = w_codes[k * ${wRun}u + (lx + ${nx * (4 * q + i)}u) * ${nLanes}u + ${h}u];`,
      ),
    );
    return [
      ...codes,
      ...count(4).map((i) => `let f${q}_${i} = w_scale[k * ${tileRows}u + lx + ${nx * (4 * q + i)}u];`),
      `let scale${q} = vec4f(${each(q, hasMin ? '.x' : '')});`,
      hasMin ? `let min${q} = vec4f(${each(q, '.y')});` : '',
    ];
  });
  const tokenLines = count(tile.tokens).map((t) => {
    const at = `ly + ${ny * t}u`;
    const codes = words.map((h) => `let c${h} = x_codes[k * ${xRun}u + (${at}) * ${nLanes}u + ${h}u];`);
    const added = quads.map((q) => {
      const dots = count(4).map((i) => words.map((h) => `dot4I8Packed(w${q}_${i}_${h}, c${h})`).join(' + '));
      const minimum = hasMin ? ` - min${q} * d.y` : '';
      return `sum_${q}_${t} += scale${q} * (d${hasMin ? '.x' : ''} * vec4f(vec4i(${dots.join(', ')})))${minimum};`;
    });
    return `{ ${codes.join(' ')} let d = x_scale[k * ${tileTokens}u + ${at}]; ${added.join(' ')} }`;
  });

  return shader({
    name: `matmul int8 ${type} ${nRows}x${nCols}, tiles of ${tileRows}x${tileTokens}`,
    requires: ['packed_4x8_integer_dot_product'],
    bindings: {
      w: 'read array<u32>',
      codes: 'read array<u32>',
      scales: 'read array<f32>',
      ...store.bindings,
    },
    step: true,
    workgroup: {
      // [run][row][lane] and [run][row]: scales and minimums; [run][token][lane] and [run][token]: the scale, and that
      // times the sum of the codes.
      w_codes: `array<u32, ${4 * wRun}>`,
      x_codes: `array<u32, ${4 * xRun}>`,
      w_scale: `array<${hasMin ? 'vec2f' : 'f32'}, ${4 * tileRows}>`,
      x_scale: `array<${hasMin ? 'vec2f' : 'f32'}, ${4 * tileTokens}>`,
    },
    size: tile.size,
    code: `${prelude([type])}${decoder(unit)}${store.functions}
struct Codes { word: array<u32, ${nLanes}>, scale: f32 };
fn fetch_w(j: u32, s: u32, row0: u32) -> Piece {
  let row = min(row0 + j / ${nLanes}u, ${nRows - 1}u);
  return piece_0(row * ${nBlocks}u + s / ${lanes}u, s % ${lanes}u + j % ${nLanes}u);
}
fn fetch_x(j: u32, s: u32, token0: u32) -> Codes {
  let row = step.start + min(token0 + j / 4u, step.n_tokens - 1u);
  let column = s / ${lanes}u * ${blockValues / 4}u;
  ${words.map((h) => `let a${h} = column + runs_0(s % ${lanes}u + ${h}u)[j % 4u];`).join(' ')}
  let at = row * ${up16(nCols) / 4}u;
  return Codes(array<u32, ${nLanes}>(${words.map((h) => `codes[at + a${h}]`).join(', ')}), scales[row * ${rowScales(nCols)}u + a0 / ${SCALE_COLS / 4}u]);
}
fn stage_w(j: u32, p: Piece) {
  let r = j / ${nLanes}u; let h = j % ${nLanes}u;
  let signed_codes = ${signedCodes(centre)};
  ${runs.map((k) => `w_codes[${k * wRun}u + j] = signed_codes[${k}];`).join(' ')}
  if (h > 0u) { return; }
  ${runs.map((k) => `w_scale[${k * tileRows}u + r] = ${hasMin ? `vec2f(p.scale[${k}], p.min[${k}])` : `p.scale[${k}]`};`).join(' ')}
}
fn stage_x(j: u32, c: Codes) {
  let t = j / 4u; let k = j % 4u;
  ${words.map((h) => `x_codes[k * ${xRun}u + t * ${nLanes}u + ${h}u] = c.word[${h}];`).join(' ')}
  ${hasMin ? `let sum = ${words.map((h) => `dot4I8Packed(c.word[${h}], 0x01010101u)`).join(' + ')};` : ''}
  x_scale[k * ${tileTokens}u + t] = ${hasMin ? 'vec2f(c.scale, c.scale * f32(sum))' : 'c.scale'};
}
@compute
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u) {${tile.lines}
  let tid = lid.x + 8u * g;
  ${sums(tile)}
  ${fetchW.map((_, q) => `var p${q}: Piece;`).join(' ')} ${fetchX.map((_, q) => `var c${q}: Codes;`).join(' ')}
  let first = ${splitK > 1 ? `wid.z * ${perSplit}u` : '0u'};
  let end = ${splitK > 1 ? `min(${nPieces}u, first + ${perSplit}u)` : `${nPieces}u`};
  for (var s = first; s < end; s += ${nLanes}u) {
    ${lines(...fetchW, ...fetchX)}
    workgroupBarrier();
    ${lines(...stageW, ...stageX)}
    workgroupBarrier();
    for (var k = 0u; k < 4u; k++) {
      ${[...rowLines, ...tokenLines].join('\n      ')}
    }
  }
  ${store.lines}
}`,
  });
}
