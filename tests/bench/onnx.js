/**
 * Cases `onnx ROWSxCOLS M=TOKENS`: MatMulNBits of ONNX Runtime Web (4 bits, blocks of 32, one
 * thread) and this package's kernels in turns. Its weights have exactly the values of the Q4_0
 * weights here, so one float64 reference serves both.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { f16ToNumber } from '../helpers/floats.js';
import { referenceByName } from '../helpers/reference.js';
import { enter } from './contenders.js';
import { checkResult, makeData } from './data.js';
import { race } from './lab.js';
import { ensurePeers, PEERS, requirePeer } from './peers.js';

/** @import { Case } from './data.js' */
/** @import { Lab, LabCase } from './bench.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const BLOCK = 32;
const Q4_0_BYTES = 18;
/**
 * Norm-wise bounds of ONNX results by accuracy level: 0 multiplies in f32, 4 quantises activations
 * to int8.
 */
const LEVELS = /** @type {const} */ ([
  [4, 'int8'],
  [0, 'f32'],
]);
/** Tensor element types and attribute kinds of the ONNX format. */
const [FLOAT, UINT8, INT] = [1, 2, 2];

/** The messages of onnx.proto3 that a single node needs: field, number, type. */
const MESSAGES = {
  ModelProto: ['ir_version 1 int64', 'graph 7 GraphProto', 'opset_import 8 OperatorSetIdProto*'],
  OperatorSetIdProto: ['domain 1 string', 'version 2 int64'],
  GraphProto: [
    'node 1 NodeProto*',
    'name 2 string',
    'initializer 5 TensorProto*',
    'input 11 ValueInfoProto*',
    'output 12 ValueInfoProto*',
  ],
  NodeProto: [
    'input 1 string*',
    'output 2 string*',
    'op_type 4 string',
    'attribute 5 AttributeProto*',
    'domain 7 string',
  ],
  AttributeProto: ['name 1 string', 'i 3 int64', 'type 20 int32'],
  TensorProto: ['dims 1 int64*', 'data_type 2 int32', 'name 8 string', 'raw_data 9 bytes'],
  ValueInfoProto: ['name 1 string', 'type 2 TypeProto'],
  TypeProto: ['tensor_type 1 TensorType'],
  TensorType: ['elem_type 1 int32', 'shape 2 TensorShapeProto'],
  TensorShapeProto: ['dim 1 Dimension*'],
  Dimension: ['dim_value 1 int64'],
};

/**
 * Codes and scales of Q4_0 blocks in the layout of MatMulNBits: byte k of a block has values 2k and
 * 2k + 1.
 * @param {Uint8Array} blocks
 */
function matMulNBitsWeight(blocks) {
  const nBlocks = blocks.length / Q4_0_BYTES;
  const codes = new Uint8Array((nBlocks * BLOCK) / 2);
  const scales = new Float32Array(nBlocks);
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.byteLength);
  for (let b = 0; b < nBlocks; b++) {
    const at = b * Q4_0_BYTES;
    scales[b] = f16ToNumber(view.getUint16(at, true));
    const code = (/** @type {number} */ i) =>
      i < 16 ? blocks[at + 2 + i] & 15 : blocks[at + 2 + i - 16] >> 4;
    for (let k = 0; k < 16; k++) codes[16 * b + k] = code(2 * k) | (code(2 * k + 1) << 4);
  }
  return { codes, scales };
}

/**
 * A model with one MatMulNBits node: y [nTokens][nRows] = x [nTokens][nCols] * W^T.
 * @param {Case} made @param {Uint8Array} blocks  Q4_0 blocks @param {number} accuracyLevel
 * @returns {Uint8Array}
 */
function modelBytes({ nRows, nCols, nTokens }, blocks, accuracyLevel) {
  const { Root } = requirePeer('protobufjs');
  const nested = Object.fromEntries(
    Object.entries(MESSAGES).map(([name, fields]) => {
      const entries = fields.map((field) => {
        const [key, id, type] = field.split(' ');
        const rule = type.endsWith('*') ? { rule: 'repeated' } : {};
        return [key, { id: Number(id), type: type.replace('*', ''), ...rule }];
      });
      return [name, { fields: Object.fromEntries(entries) }];
    }),
  );
  const Model = Root.fromJSON({ nested }).lookupType('ModelProto');
  const { codes, scales } = matMulNBitsWeight(blocks);
  const bytes = (/** @type {ArrayBufferView} */ { buffer, byteOffset, byteLength }) =>
    new Uint8Array(buffer, byteOffset, byteLength);
  const value = (/** @type {string} */ name, /** @type {number[]} */ dims) => ({
    name,
    type: { tensor_type: { elem_type: FLOAT, shape: { dim: dims.map((dim_value) => ({ dim_value })) } } },
  });
  const attributes = { K: nCols, N: nRows, bits: 4, block_size: BLOCK, accuracy_level: accuracyLevel };
  const graph = {
    name: 'product',
    node: [
      {
        input: ['x', 'codes', 'scales'],
        output: ['y'],
        op_type: 'MatMulNBits',
        domain: 'com.microsoft',
        attribute: Object.entries(attributes).map(([name, i]) => ({ name, i, type: INT })),
      },
    ],
    initializer: [
      { name: 'codes', data_type: UINT8, dims: [nRows, nCols / BLOCK, BLOCK / 2], raw_data: codes },
      { name: 'scales', data_type: FLOAT, dims: [nRows, nCols / BLOCK], raw_data: bytes(scales) },
    ],
    input: [value('x', [nTokens, nCols])],
    output: [value('y', [nTokens, nRows])],
  };
  const opset_import = [
    { domain: '', version: 21 },
    { domain: 'com.microsoft', version: 1 },
  ];
  return Model.encode(Model.fromObject({ ir_version: 10, opset_import, graph })).finish();
}

/** @param {Lab} lab @param {Case} made */
async function runOnnx({ module, limits }, made) {
  const folder = await ensurePeers();
  const entry = join(folder, 'node_modules/onnxruntime-web/dist/ort.node.min.mjs');
  if (!existsSync(entry)) throw new Error(`onnxruntime-web has no ${entry}`);
  const ort = await import(pathToFileURL(entry).href);
  ort.env.wasm.numThreads = 1;
  const { w, x, expected } = makeData(made);
  const ours = enter(module, made, { kernels: /^(Q4_K )?int8 relaxed|baseline/, all: false });
  const contenders = [...ours.contenders];
  const sessions = [];
  for (const [level, mode] of LEVELS) {
    const session = await ort.InferenceSession.create(modelBytes(made, w, level));
    sessions.push(session);
    const input = { x: new ort.Tensor('float32', x, [made.nTokens, made.nCols]) };
    const name = `onnxruntime-web ${PEERS['onnxruntime-web']}, accuracy level ${level}`;
    const { y } = await session.run(input);
    const error = checkResult(name, mode, y.data, expected);
    const { flops, bytes } = contenders[0];
    contenders.push({ name, run: () => session.run(input), flops, bytes, error });
  }
  const timings = await race(contenders, limits);
  for (const session of sessions) await session.release();
  ours.free();
  return timings.map(({ name, run: _, ...timing }) => ({
    section: 'onnx',
    case: onnxName(made),
    kernel: name.startsWith('int8') ? `Q4_0 ${name}` : name,
    nRows: made.nRows,
    nCols: made.nCols,
    nTokens: made.nTokens,
    ...timing,
  }));
}

/** @param {Case} made */
const onnxName = ({ nRows, nCols, nTokens }) => `onnx ${nRows}x${nCols} M=${nTokens}`;

/** @param {Lab} lab @returns {LabCase[]} */
export function onnxCases({ quick, peers }) {
  const type = /** @type {ReferenceType} */ (referenceByName.get('Q4_0'));
  const shapes = quick ? [[512, 1024]] : [[4096, 4096]];
  return shapes.flatMap(([nRows, nCols]) =>
    [1, 32, 128].map((nTokens) => {
      const made = { type, nRows, nCols, nTokens };
      return {
        name: onnxName(made),
        byDefault: peers,
        run: (lab) => runOnnx(lab, made),
      };
    }),
  );
}
