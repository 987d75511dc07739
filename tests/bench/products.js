/**
 * Cases `TYPE ROWSxCOLS M=TOKENS [cold]`: one product with all its contenders. Cold means that
 * weights rotate through more than 160 MB.
 */
import { referenceById } from '../helpers/reference.js';
import { enter } from './contenders.js';
import { race } from './lab.js';

/** @import { Case } from './data.js' */
/** @import { Lab, LabCase } from './bench.js' */

/** Cases of the promises. `npm run bench` measures these by default. */
const MAIN_TYPES = ['Q4_K', 'Q6_K', 'Q8_0', 'Q4_0'];
const SMALL = [
  [576, 1536],
  [256, 256],
];
const QUICK = [512, 1024];

/**
 * The square shape of the promises, the down projection of TinyLlama 1.1B, that of an 8B llama, and
 * small shapes.
 */
const SHAPES = [[4096, 4096], [2048, 5632], [4096, 14336], ...SMALL];
const TOKENS = [1, 8, 32, 128, 512];

/** @param {Case} c */
const caseName = ({ type, nRows, nCols, nTokens, cold }) =>
  `${type.name} ${nRows}x${nCols} M=${nTokens}${cold ? ' cold' : ''}`;

/** @param {Case} c */
function isDefault({ type, nRows, nCols, nTokens, cold }) {
  if (nRows * nCols < 1e6) return type.name === 'Q4_K' && [1, 8, 128].includes(nTokens) && !cold;
  if (nCols === 14336) return type.name === 'Q4_K' && nTokens === 512;
  if (nRows !== 4096) return false;
  if (nTokens === 1) return MAIN_TYPES.includes(type.name);
  return nTokens === 32 || nTokens === 512
    ? /K/.test(type.name) && MAIN_TYPES.includes(type.name)
    : nTokens === 128 && MAIN_TYPES.includes(type.name);
}

/** @param {Lab} lab @returns {LabCase[]} */
export function productCases({ module, quick }) {
  const types = module.types.flatMap(({ id }) => referenceById.get(id) ?? []);
  /* Q4_K first, because the others are compared with it. */
  types.sort((a, b) => Number(b.name === 'Q4_K') - Number(a.name === 'Q4_K'));
  /** @type {Case[]} */
  const all = types.flatMap((type) =>
    (quick ? [QUICK] : SHAPES).flatMap(([nRows, nCols]) =>
      (quick ? [1, 8] : TOKENS).flatMap((nTokens) =>
        (nTokens === 1 ? [false, true] : [false]).map((cold) => ({ type, nRows, nCols, nTokens, cold })),
      ),
    ),
  );
  return all
    .filter(({ type, nCols }) => nCols % type.blockValues === 0)
    .map((made) => ({
      name: caseName(made),
      byDefault: quick ? MAIN_TYPES.includes(made.type.name) && !made.cold : isDefault(made),
      run: (lab) => runProduct(lab, made),
    }));
}

/** @param {Lab} lab @param {Case} made */
async function runProduct({ module, limits, kernels, all }, made) {
  const { type, nRows, nCols, nTokens, cold } = made;
  const { contenders, free } = enter(module, made, { kernels, all });
  try {
    const timings = await race(contenders, limits);
    return timings.map(({ name, run: _, ...timing }) => ({
      section: 'product',
      case: caseName(made),
      kernel: name,
      type: type.name,
      nRows,
      nCols,
      nTokens,
      cold: Boolean(cold),
      ...timing,
    }));
  } finally {
    free();
  }
}
