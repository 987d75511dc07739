/* Products for many tokens in integers: matmul() with activations of quantizeActivations(), four
 * products an instruction.
 *
 * Needs `dot4I8Packed`. Products of columns that share both scales, the weight's and the
 * activations', are added up as integers, exactly; then they are scaled, and added up in f32. A
 * weight's minimums are multiplied by the sum of the activations. */

import { shader, up16 } from '../shader.js';
import { int8Form } from './int8-codes.js';
import { count, stores, sums, tiling } from './matmul.js';
import { rowScales, SCALE_COLS } from './quantize.js';
import { decoder, prelude, rowBlocks, WGSL_TYPES } from './types.js';

/** @typedef {import('../shader.js').Shader} Shader */
/** @typedef {import('./matmul.js').Epilogue} Epilogue */
/** @typedef {import('./matmul.js').TileShape} TileShape */
/** @typedef {import('./types.js').Unit} Unit */

/**
 * The unit is of a coded type.
 * @typedef {{ unit: Unit } & TileShape & Epilogue} MatmulInt8Options
 */

/**
 * Codes of one side in workgroup memory: [four words][row][word of the four]. The words of an
 * integer sum follow one another.
 * @param {number} nRows
 * @param {number} sumWords  words of a sum, 2 or a multiple of 4
 */
function side(nRows, sumWords) {
  // Fours of words begin in different banks.
  const stride = 4 * nRows + 8;
  return {
    words: (/** @type {number} */ n) => (n / 4) * stride,
    /** @param {string} sum  its number @param {number} e  its word @param {string} row */
    at: (sum, e, row) =>
      sumWords % 4 === 0
        ? `(${sum} * ${sumWords / 4}u + ${e >> 2}u) * ${stride}u + 4u * (${row}) + ${e & 3}u`
        : `(${sum} / 2u) * ${stride}u + 4u * (${row}) + ${sum} % 2u * 2u + ${e}u`,
  };
}

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
  const { unit } = options;
  const { type, nRows, nCols } = unit;
  const { lanes, blockValues, share, coded } = WGSL_TYPES[type];
  if (!coded) throw new TypeError(`${type} has no codes: integer products need a quantised weight`);
  const form = int8Form(type);
  const { runs: merged, hasMin } = form;
  const tile = tiling(options);
  const { tileRows, tileTokens, nx, ny, invocations } = tile;
  const store = stores(tile, nRows, options);
  const nBlocks = rowBlocks(unit);
  const nPieces = nBlocks * lanes;
  // A step takes lanes that share scales; 64 columns as far as there are such steps.
  const groupLanes = Math.min(share, 4);
  const stepGroups = nPieces % 4 === 0 ? 4 / groupLanes : 1;
  const stepLanes = groupLanes * stepGroups;
  const groupSums = 4 / merged;
  const stepSums = groupSums * stepGroups;
  const sumWords = merged * groupLanes;
  const words = count(sumWords);
  const quads = count(tile.rows / 4);
  const [ofW, ofX] = [side(tileRows, sumWords), side(tileTokens, sumWords)];

  // Work for all invocations: what the q-th item of an invocation, `j` of n, needs.
  const items = (/** @type {number} */ n, /** @type {(j: string, q: number) => string} */ does) =>
    count(Math.ceil(n / invocations)).map((q) => {
      const code = does(`(tid + ${q * invocations}u)`, q);
      return (q + 1) * invocations <= n ? code : `if (tid < ${n - q * invocations}u) { ${code} }`;
    });
  const wItems = tileRows * stepLanes;
  const xItems = tileTokens * stepSums;
  const fetchW = items(wItems, (j, q) => `p${q} = fetch_w(${j}, s, row0);`);
  const fetchX = items(xItems, (j, q) => `c${q} = fetch_x(${j}, s, token0);`);
  const stageW = items(wItems, (j, q) => `stage_w(${j}, p${q});`);
  const stageX = items(xItems, (j, q) => `stage_x(${j}, c${q});`);
  const lines = (/** @type {string[]} */ ...code) => code.join('\n    ');

  // Run k of lane h is word k * groupLanes + h of its group.
  const stagedCodes = count(4).map((k) => {
    const sum = `(h / ${groupLanes}u * ${groupSums}u + ${Math.floor(k / merged)}u)`;
    const first = (k % merged) * groupLanes;
    const at = ofW.at(sum, first, 'r');
    return `w_codes[${at} + h % ${groupLanes}u] = codes_of_p[${k}];`;
  });
  const stagedScales = count(groupSums).map((n) => {
    const k = n * merged;
    const value = hasMin ? `vec2f(p.scale[${k}], p.min[${k}])` : `p.scale[${k}]`;
    return `w_scale[(h / ${groupLanes}u * ${groupSums}u + ${n}u) * ${tileRows}u + r] = ${value};`;
  });
  const run = (/** @type {number} */ e) => {
    const k = Math.floor(e / groupLanes);
    return groupSums === 1 ? `${k}` : `n % ${groupSums}u * ${merged}u + ${k}u`;
  };

  const rowLines = quads.flatMap((q) => {
    const rows = count(4).map((i) => `lx + ${nx * (4 * q + i)}u`);
    const each = (/** @type {string} */ part) => count(4).map((i) => `f${q}_${i}${part}`);
    return [
      ...rows.flatMap((row, i) => words.map((e) => `let w${q}_${i}_${e} = w_codes[${ofW.at('n', e, row)}];`)),
      ...rows.map((row, i) => `let f${q}_${i} = w_scale[n * ${tileRows}u + ${row}];`),
      `let scale${q} = vec4f(${each(hasMin ? '.x' : '')});`,
      hasMin ? `let min${q} = vec4f(${each('.y')});` : '',
    ];
  });
  const tokenLines = count(tile.tokens).map((t) => {
    const token = `ly + ${ny * t}u`;
    const codes = words.map((e) => `let c${e} = x_codes[${ofX.at('n', e, token)}];`);
    const added = quads.map((q) => {
      const dots = count(4).map((i) => words.map((e) => `dot4I8Packed(w${q}_${i}_${e}, c${e})`).join(' + '));
      const minimum = hasMin ? ` - min${q} * d.y` : '';
      return `sum_${q}_${t} += scale${q} * (d${hasMin ? '.x' : ''} * vec4f(vec4i(${dots.join(', ')})))${minimum};`;
    });
    return `{ ${codes.join(' ')} let d = x_scale[n * ${tileTokens}u + ${token}]; ${added.join(' ')} }`;
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
      w_codes: `array<u32, ${ofW.words(4 * stepLanes)}>`,
      x_codes: `array<u32, ${ofX.words(4 * stepLanes)}>`,
      // [sum][row]: the scale and the minimum. [sum][token]: the scale, and the scale times the sum
      // of the codes.
      w_scale: `array<${hasMin ? 'vec2f' : 'f32'}, ${stepSums * tileRows}>`,
      x_scale: `array<${hasMin ? 'vec2f' : 'f32'}, ${stepSums * tileTokens}>`,
    },
    size: tile.size,
    code: `${prelude([type])}${decoder(unit)}${store.functions}
struct Codes { word: array<u32, ${sumWords}>, scale: f32 };
fn fetch_w(j: u32, s: u32, row0: u32) -> Piece {
  let i = s + j % ${stepLanes}u;
  return piece_0(min(row0 + j / ${stepLanes}u, ${nRows - 1}u) * ${nBlocks}u + i / ${lanes}u, i % ${lanes}u);
}
fn fetch_x(j: u32, s: u32, token0: u32) -> Codes {
  let n = j % ${stepSums}u;
  let row = step.start + min(token0 + j / ${stepSums}u, step.n_tokens - 1u);
  let i = s + n / ${groupSums}u * ${groupLanes}u;
  let column = i / ${lanes}u * ${blockValues / 4}u;
  ${words.map((e) => `let a${e} = column + runs_0(i % ${lanes}u + ${e % groupLanes}u)[${run(e)}];`).join(' ')}
  let at = row * ${up16(nCols) / 4}u;
  return Codes(array<u32, ${sumWords}>(${words.map((e) => `codes[at + a${e}]`).join(', ')}), scales[row * ${rowScales(nCols)}u + a0 / ${SCALE_COLS / 4}u]);
}
fn stage_w(j: u32, p: Piece) {
  let r = j / ${stepLanes}u; let h = j % ${stepLanes}u;
  let codes_of_p = ${form.codes('p.codes')};
  ${stagedCodes.join(' ')}
  if (h % ${groupLanes}u > 0u) { return; }
  ${stagedScales.join(' ')}
}
fn stage_x(j: u32, c: Codes) {
  let t = j / ${stepSums}u; let n = j % ${stepSums}u;
  ${words.map((e) => `x_codes[${ofX.at('n', e, 't')}] = c.word[${e}];`).join(' ')}
  ${hasMin ? `let sum = ${words.map((e) => `dot4I8Packed(c.word[${e}], 0x01010101u)`).join(' + ')};` : ''}
  x_scale[n * ${tileTokens}u + t] = ${hasMin ? 'vec2f(c.scale, c.scale * f32(sum))' : 'c.scale'};
}
@compute
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u) {${tile.lines}
  let tid = lid.x + 8u * g;
  ${sums(tile)}
  ${fetchW.map((_, q) => `var p${q}: Piece;`).join(' ')} ${fetchX.map((_, q) => `var c${q}: Codes;`).join(' ')}
  for (var s = 0u; s < ${nPieces}u; s += ${stepLanes}u) {
    ${lines(...fetchW, ...fetchX)}
    workgroupBarrier();
    ${lines(...stageW, ...stageX)}
    workgroupBarrier();
    for (var n = 0u; n < ${stepSums}u; n++) {
      ${[...rowLines, ...tokenLines].join('\n      ')}
    }
  }
  ${store.lines}
}`,
  });
}
