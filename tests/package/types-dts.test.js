/** The generated .d.ts files, as a strict TypeScript user gets them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import ts from 'typescript';
import { root } from '../../scripts/setup/run.js';
import { packedPackage } from '../helpers/consumers.js';

/** Two compilers: TypeScript 5, which most users have, and 7. */
const COMPILERS = { 'TypeScript 5': 'typescript', 'TypeScript 7': 'typescript-native' };

/** @type {ReturnType<typeof packedPackage>} */
let installed;
/** @type {string} */
let folder;
before(() => {
  installed = packedPackage();
  folder = installed.app('typescript');
});
after(() => installed?.remove());

const STRICT = {
  strict: true,
  skipLibCheck: false,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noEmit: true,
  target: 'es2022',
  types: [],
};

/**
 * @param {string | string[]} code  source of a module, or several @param {object} [options]
 * @param {string} [compiler]
 */
function compile(code, options = { module: 'nodenext' }, compiler = 'typescript-native') {
  const files = [code].flat().map((text, i) => {
    writeFileSync(path.join(folder, `consumer-${i}.ts`), text);
    return `consumer-${i}.ts`;
  });
  const config = { compilerOptions: { ...STRICT, ...options }, files };
  writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
  const tsc = path.join(root, 'node_modules', compiler, 'bin/tsc');
  const args = [tsc, '-p', '.', '--pretty', 'false'];
  const { status, stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
  return { status, stdout };
}

const CONSUMER = `
import { createKernels, openGguf, types, version, FmError, GgufError, HandleError, IsaError, LoadError, MemoryError, ShapeError } from 'fused-matmul/layer';
import type { GgufFile, Kernels, KvCache, Tensor, Weight } from 'fused-matmul/layer';

export async function multiply(source: string | URL | Blob | ArrayBuffer): Promise<Float32Array> {
  const gguf: GgufFile = await openGguf(source, { signal: new AbortController().signal });
  using fm: Kernels = await createKernels({ isa: 'simd128', activation: 'int8' });
  const w: Weight = await fm.loadWeight(gguf, 'blk.0.ffn_gate.weight', {
    onProgress: ({ loaded, total }) => { const part: number = loaded / total; void part; },
  });
  const x: Float32Array = new Float32Array(w.nCols);
  const y: Float32Array = fm.fusedMatmul(w, x, { activation: 'int16' });
  const t: Tensor = fm.tensor({ nRows: 1, nCols: w.nCols, data: x });
  const yt: Tensor = fm.fusedMatmul(w, t);
  const rows: Float32Array = fm.dequantize(w, { start: 0, end: 1 });
  const isa: 'relaxed' | 'simd128' | 'scalar' = fm.info.isa;
  const steps: { isa: string; ok: boolean; reason: string }[] = fm.info.steps;
  const inUse: number = fm.memory().inUse;
  void [yt.toArray(), rows, isa, steps, inUse, version.length, types.length];
  const [q, k]: Float32Array[] = fm.fusedRmsNormMatmul([w, w], x, x, { eps: 1e-6 });
  const ffn: Tensor = fm.fusedFfn({ gate: w, up: w, down: w, norm: x }, t, { act: 'gelu', residual: true });
  using cache: KvCache = fm.kvCache({ type: 'Q8_0', nPositions: 8, nKvHeads: 1, headSize: 64 });
  cache.write(t, 0);
  const attended: Tensor = fm.flashAttention(t, cache, cache, { window: 8 });
  const embedded: Float32Array = fm.embed(w, [0, 1]);
  const rotated: Tensor = fm.rope(t, { headSize: 64, pairing: 'halves', out: t });
  const mixed: Float32Array = fm.add(t, x, { out: x });
  void [q, k, ffn, attended, embedded, rotated, mixed];
  w.free();
  return y;
}
const range: RangeError = new ShapeError('x', { got: 1, expected: 2 });
export const errors: (typeof FmError)[] = [GgufError, HandleError, IsaError, LoadError, MemoryError] as never;
void range;
`;

const OTHER_ENTRIES = `
import { createKernels, createWorkerKernels, type Activation, type KernelsInfo, type KernelsOptions, type WorkerKernels } from 'fused-matmul';
import type { FlashOptions, Floats, KvType } from 'fused-matmul/layer';
import { createOpenAI, type ChatCompletion, type ChatRequest, type LocalOpenAI } from 'fused-matmul/openai';
import { Llama, ModelError, type Generation, type GenerationStats, type LlamaOptions, type Message, type ModelInfo } from 'fused-matmul/llama';

export async function inWorker(model: string): Promise<Float32Array> {
  const fm: WorkerKernels = await createWorkerKernels({ activation: 'int8', signal: new AbortController().signal });
  const w = await fm.weight({ type: 'Q4_K', nRows: 1, nCols: 256, data: new Uint8Array(144) });
  const t = await fm.tensor({ nRows: 1, nCols: 256 });
  const y: Float32Array = await fm.fusedMatmul(w, new Float32Array(256), { activation: 'f32' });
  const z = await fm.fusedMatmul(w, t);
  void (await z.toArray());
  await fm.dispose();
  void model;
  return y;
}
export async function write(model: Blob, onText: (text: string) => void): Promise<GenerationStats> {
  const options: LlamaOptions = { contextLength: 512, kvType: 'Q8_0', onProgress: ({ loaded, total }) => void [loaded, total] };
  const llama: Llama = await Llama.load(model, options);
  const info: ModelInfo = llama.info;
  const messages: Message[] = [{ role: 'user', content: info.architecture }];
  const generation: Generation = await llama.chat(messages, { maxTokens: 5 });
  for await (const piece of generation) onText(piece);
  llama.dispose();
  return generation.stats;
}
export async function answer(llama: Llama): Promise<string> {
  const api: LocalOpenAI = createOpenAI(llama, { name: 'local' });
  const request: ChatRequest = { messages: [{ role: 'user', content: 'Hello' }], max_tokens: 5 };
  const whole: ChatCompletion = await api.chat.completions.create({ ...request, stream: false });
  let text: string = whole.choices[0]?.message.content ?? '';
  for await (const chunk of await api.chat.completions.create({ ...request, stream: true })) text += chunk.choices[0]?.delta.content ?? '';
  const response: Response = await api.fetch('http://local/v1/models');
  void response;
  return text;
}
export const options: KernelsOptions = { isa: 'relaxed', threads: 2, memory64: false };
export const flash: FlashOptions<Float32Array> = { window: 4, out: new Float32Array(4) };
export const names: [Activation, KvType] = ['int8', 'F16'];
export const floats: Floats = new Float32Array(1);
export const info = async (): Promise<KernelsInfo> => (await createKernels(options)).info;
export const why = (error: unknown) => (error instanceof ModelError ? error.code : undefined);
`;

for (const [name, compiler] of Object.entries(COMPILERS)) {
  for (const resolution of ['nodenext', 'bundler']) {
    test(`a strict consumer compiles with ${name}, module resolution ${resolution}, libraries checked`, () => {
      const bundler = { module: 'esnext', moduleResolution: 'bundler' };
      writeFileSync(path.join(folder, 'entries.ts'), OTHER_ENTRIES);
      const code = `${CONSUMER}\nimport './entries.js';\n`;
      const { status, stdout } = compile(code, resolution === 'bundler' ? bundler : undefined, compiler);
      assert.equal(stdout, '');
      assert.equal(status, 0);
    });
  }
}

/**
 * The text that an editor shows when the pointer is over a name.
 * @param {string} code  with a | before the name
 */
function hover(code) {
  const at = code.indexOf('|');
  const file = path.join(folder, 'hover.ts');
  writeFileSync(file, code.replace('|', ''));
  const service = ts.createLanguageService({
    getScriptFileNames: () => [file],
    getScriptVersion: () => '1',
    getScriptSnapshot: (name) =>
      ts.sys.fileExists(name) ? ts.ScriptSnapshot.fromString(ts.sys.readFile(name) ?? '') : undefined,
    getCurrentDirectory: () => folder,
    getCompilationSettings: () => ({ module: ts.ModuleKind.NodeNext, strict: true, types: [] }),
    getDefaultLibFileName: ts.getDefaultLibFilePath,
    fileExists: ts.sys.fileExists,
    readFile: ts.sys.readFile,
  });
  const info = service.getQuickInfoAtPosition(file, at) ?? assert.fail(code);
  const tags = (info.tags ?? []).map(({ name, text }) => `@${name} ${ts.displayPartsToString(text)}`);
  return [
    ts.displayPartsToString(info.displayParts),
    ts.displayPartsToString(info.documentation),
    ...tags,
  ].join('\n');
}

test('editors show types that can be read, and what things are', () => {
  const kernels =
    "import { createKernels, type KernelsOptions } from 'fused-matmul/layer';\nconst fm = await createKernels();\n";
  /** @type {[string, RegExp[]][]} */
  const shown = [
    [
      `${kernels}void |createKernels;`,
      [/options\?: KernelsOptions\): Promise</, /all operations of a layer/],
    ],
    [
      `${kernels}const o: KernelsOptions = { |isa: 'simd128' };`,
      [/isa\?: Isa/, /the best that passes its self-test/],
    ],
    [
      `${kernels}void fm.info.|isa;`,
      [/isa: Isa|"scalar" \| "simd128" \| "relaxed"/, /the instruction set in use/],
    ],
    [
      `${kernels}declare const w: import('fused-matmul').Weight;\nconst |y = fm.fusedMatmul(w, new Float32Array(4));`,
      [/const y: .*Float32Array<ArrayBuffer>/],
    ],
    [
      `${kernels}declare const w: import('fused-matmul').Weight;\nfm.|fusedMatmul(w, new Float32Array(4));`,
      [
        /Multiplies f32 rows by a quantised weight/,
        /@param x nTokens \* nCols values/,
        /@throws \{?ShapeError/,
      ],
    ],
  ];
  const openai =
    "import { Llama } from 'fused-matmul/llama';\nimport { createOpenAI } from 'fused-matmul/openai';\n" +
    "const model = await Llama.load('m.gguf');\nconst openai = createOpenAI(model);\n";
  shown.push(
    [
      `${openai}void openai.chat.completions.|create;`,
      [/create: CreateChat/, /in chunks with `stream: true`/],
    ],
    [
      `${openai}void openai.chat.completions.create({ messages: [], |max_tokens: 5 });`,
      [/max_tokens\?: number \| null/, /Older name of max_completion_tokens/],
    ],
    [`${openai}model.generate('a').|stop();`, [/stop\(\): void/, /Ends the text where it is/]],
    [
      `${openai}model.generate('a', { |logits: (row) => { row[0] = 0; } });`,
      [/logits\?: LogitsHook/, /called\s+for every token before it is chosen/],
    ],
    [`${openai}model.generate('a', { |queue: true });`, [/queue\?: boolean/, /Wait in a line/]],
  );
  for (const [code, expected] of shown) {
    const text = hover(code);
    for (const pattern of expected) assert.match(text, pattern);
    assert.doesNotMatch(text, /import\("/);
  }
});

test('what only the library can make has no public constructor', () => {
  const names = ['Weight', 'Tensor', 'GgufFile', 'Kernels'];
  const { stdout } = compile(
    names.map((name) => `import { ${name} } from 'fused-matmul';\nexport const made = new ${name}();`),
  );
  for (const i of names.keys())
    assert.match(stdout, new RegExp(`^consumer-${i}.ts.*TS2674.*protected`, 'm'), names[i]);
});

/**
 * Defines a test for each mistake. They are compiled together with the head alone, which must
 * compile.
 * @param {string} rejects
 * @param {[string, string][]} mistakes  name of the mistake, and its line
 * @param {string} head
 */
function mistakeTests(rejects, mistakes, head) {
  /** @type {string} */
  let errors;
  const compiled = () => {
    errors ??= compile([head, ...mistakes.map(([, line]) => head + line)]).stdout;
    return errors.split('\n');
  };
  for (const [i, [what]] of mistakes.entries()) {
    test(`${rejects} ${what}`, () => {
      const of = (/** @type {number} */ n) =>
        compiled().filter((line) => line.startsWith(`consumer-${n}.ts(`));
      assert.deepEqual(of(0), []);
      assert.match(of(i + 1).join('\n'), /error TS\d+/);
    });
  }
}

/** @type {[string, string][]} */
const MISTAKES = [
  ['an instruction set that does not exist', "void createKernels({ isa: 'avx2' });"],
  ['an activation mode that does not exist', "void createKernels({ activation: 'int4' });"],
  ['a plain array as activations', 'void createKernels().then((fm) => fm.fusedMatmul(w, [1, 2, 3]));'],
  ['a gate that does not exist', "void createKernels().then((fm) => fm.gated(t, t, { act: 'tanh' }));"],
  [
    'a cache type that does not exist',
    "void createKernels().then((fm) => fm.kvCache({ type: 'Q4_0', nPositions: 1, nKvHeads: 1, headSize: 32 }));",
  ],
  [
    'a Tensor taken for a Float32Array',
    'void createKernels().then((fm) => { const y: Float32Array = fm.fusedMatmul(w, t); });',
  ],
];
mistakeTests(
  'the types reject',
  MISTAKES,
  "import { createKernels, type Tensor, type Weight } from 'fused-matmul/layer';\n" +
    'declare const w: Weight; declare const t: Tensor;\nvoid w; void t; void createKernels;\n',
);

const WORKER_CONSUMER = `
import { createWorkerKernels, openGguf, type WorkerKernels, type WorkerTensor, type WorkerWeight, type WorkerKvCache } from 'fused-matmul';
export async function inWorker(x: Float32Array) {
  const gguf = await openGguf('x');
  await using fm: WorkerKernels = await createWorkerKernels({ isa: 'simd128', signal: AbortSignal.timeout(1000) });
  const signal = new AbortController().signal;
  const w: WorkerWeight = await fm.loadWeight(gguf, 'a', { signal });
  const [a, b]: WorkerWeight[] = await fm.loadWeights(gguf, ['a', 'b'], { concurrency: 2, onProgress: ({ loaded }) => void loaded });
  const y: Float32Array = await fm.fusedMatmul(w, x, { activation: 'int8', signal, transfer: [x.buffer as ArrayBuffer] });
  const t: WorkerTensor = await fm.tensor({ nRows: 1, nCols: 4, data: x }, { signal });
  const yt: WorkerTensor = await fm.fusedMatmul(w, t);
  const into: Float32Array = await fm.fusedMatmul(w, t, { out: y });
  const tin: WorkerTensor = await fm.fusedMatmul(w, x, { out: t });
  const rows: Float32Array = await fm.dequantize(w, { start: 0, end: 1 });
  const dense: WorkerWeight = await fm.dequantize(w, { out: a! });
  const many: Float32Array[] = await fm.fusedRmsNormMatmul([w, b!], x, x, { eps: 1e-6 });
  const manyT: WorkerTensor[] = await fm.fusedMatmulMany([w, b!], t);
  const ffn: WorkerTensor = await fm.fusedFfn({ gate: w, up: w, down: w, norm: x }, t, { act: 'gelu', residual: true });
  const cache: WorkerKvCache = await fm.kvCache({ type: 'Q8_0', nPositions: 8, nKvHeads: 1, headSize: 64 });
  await cache.write(t, 0, { signal });
  const e: Float32Array = await fm.embed(w, [0, 1]);
  const rope: WorkerTensor = await fm.rope(t, { headSize: 64, out: t });
  const { inUse } = await fm.memory();
  const served: { isa: 'scalar' | 'simd128' | 'relaxed' } = await fm.servedBy('Q4_K', 'int8');
  const q: Uint8Array = await fm.quantize('Q4_K', x, 1, 256, { signal });
  const r: { logits: Float32Array; t: WorkerTensor; n: number; kv: WorkerTensor[] } = await fm.sequence((ops) => {
    const h = ops.tensor({ nRows: 1, nCols: 4, data: x });
    const [k, v] = ops.fusedRmsNormMatmul([w, w], h, x);
    ops.rope(k!, { headSize: 4, out: k! });
    cache.write(v!, 0);
    const at = ops.flashAttention(k!, cache, cache, { firstPosition: 0 });
    const l = ops.fusedMatmul(w, ops.add(h, at));
    const p = ops.softmax(ops.dequantize(w));
    return { logits: l.toArray(), t, n: 3, kv: [k!, v!] };
  }, { signal });
  const one: WorkerTensor = await fm.sequence((ops) => ops.add(t, t));
  const oneF: Float32Array = await fm.sequence((ops) => ops.add(x, x));
  await fm.sequence((ops) => { ops.add(t, t, { out: t }); });
  void [into, tin, yt, rows, dense, many, manyT, ffn, e, rope, inUse, served, q, r, one, oneF, fm.info.isa, w.nRows.toFixed(), fm.types[0]!.name];
  return y;
}
`;

test('kernels in a worker: types follow those of the synchronous ones', () => {
  const { status, stdout } = compile(WORKER_CONSUMER);
  assert.equal(stdout, '');
  assert.equal(status, 0);
});

/** @type {[string, string][]} */
const WORKER_MISTAKES = [
  ['a result that is not awaited', 'fm.fusedMatmul(w, x).length;'],
  ['a Tensor taken for a Float32Array', 'fm.fusedMatmul(w, t).then((y) => { const a: Float32Array = y; });'],
  ['a plain array as activations', 'void fm.fusedMatmul(w, [1, 2]);'],
  ['a tensor as a weight', 'void fm.fusedMatmul(t, x);'],
  ['a gate that does not exist', "void fm.gated(t, t, { act: 'tanh' });"],
  ['a handle of this thread', 'void fm.fusedMatmul(own, x);'],
];
mistakeTests(
  'the types of kernels in a worker reject',
  WORKER_MISTAKES,
  "import type { Weight, WorkerKernels, WorkerTensor, WorkerWeight } from 'fused-matmul';\n" +
    'declare const fm: WorkerKernels; declare const w: WorkerWeight; declare const t: WorkerTensor;\n' +
    'declare const own: Weight; declare const x: Float32Array;\nvoid fm; void w; void t; void own; void x;\n',
);
