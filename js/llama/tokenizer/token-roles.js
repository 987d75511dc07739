/* Roles of tokens that files do not state reliably: which tokens end a generation, which are
 * control tokens, and which take the white space beside them. The lists are those of llama.cpp,
 * which decides by the texts of tokens. */

/** @typedef {import('../../gguf/index.js').MetadataValue} MetadataValue */
/** @typedef {(key: string) => MetadataValue | undefined} Get  a value of tokenizer.ggml */

/**
 * Texts that end a generation, whatever type the file gives them. `<|end_of_turn|>` is not in
 * llama.cpp's list.
 */
const END_TEXTS = [
  ...['<|eot_id|>', '<|eom_id|>', '<|end_of_text|>', '<|im_end|>', '<|endoftext|>', '<|end|>', '<|return|>'],
  ...[
    '<|call|>',
    '<|calls|>',
    '<|flush|>',
    '<|tool_response>',
    '<end_of_turn>',
    '<|end_of_turn|>',
    '<turn|>',
  ],
  ...[
    '<EOT>',
    '_<EOT>',
    '[EOT]',
    '[EOS]',
    '<eos>',
    '</s>',
    '<end_of_utterance>',
    '<｜end▁of▁sentence｜>',
    '[e~[',
  ],
];

/**
 * Tokens of code infilling: the metadata keys that name them, and their texts if no key does.
 * @type {[string[], string[]][]}
 */
const INFILL = [
  ['prefix', 'begin', 'PRE'],
  ['suffix', 'hole', 'SUF'],
  ['middle', 'end', 'MID'],
].map(([word, deepSeek, upper]) => [
  [`fim_${upper.toLowerCase()}`, word],
  [
    ...[`<|fim_${word}|>`, `<fim-${word}>`, `<fim_${word}>`, `<|code_${word}|>`, `<|${word}|>`],
    ...[`<｜fim▁${deepSeek}｜>`, `<${upper}>`, `▁<${upper}>`],
  ],
]);
/**
 * The same for padding and the borders of files and repositories, which end a generation.
 * @type {[string[], string[]][]}
 */
const INFILL_ENDS = [
  [['fim_pad'], ['<|fim_pad|>', '<fim-pad>', '<fim_pad>', '<PAD>', '[PAD]']],
  [['fim_rep'], ['<|fim_repo|>', '<|repo_name|>', '<fim-repo>', '<REPO>', '<reponame>']],
  [['fim_sep'], ['<|file_sep|>']],
];

/**
 * Token ids in tokenizer.ggml.<name>_token_id or, as a list, <name>_token_ids; ids outside the
 * vocabulary are left out.
 * @param {Get} get
 * @param {string} name
 * @param {number} size  size of the vocabulary
 */
export function namedTokens(get, name, size) {
  const ids = [get(`${name}_token_id`), get(`${name}_token_ids`)].flat();
  return /** @type {number[]} */ (
    ids.filter((id) => Number.isInteger(id) && Number(id) >= 0 && Number(id) < size)
  );
}

/**
 * @param {Get} get
 * @param {ReadonlyMap<string, number>} ids  ids by the tokens' texts
 * @param {{ size: number, eos: number | undefined }} vocabulary  its size, and the token that ends
 *   a text by default
 * @returns {{ ends: number[], control: number[] }} the tokens that end a generation, and those that
 *   are control tokens even if the file gives them another type
 */
export function tokenRoles(get, ids, { size, eos }) {
  const known = (/** @type {string[]} */ texts) =>
    texts.map((text) => ids.get(text)).filter((id) => id !== undefined);
  const has = (/** @type {string[]} */ ...texts) => texts.some((text) => ids.has(text));
  // In these vocabularies <|end|> only ends a part of an answer, and </s> is an HTML tag.
  const harmless = new Set([
    ...(has('<|call|>', '<|calls|>') && has('<|return|>', '<|flush|>') ? known(['<|end|>']) : []),
    ...(has('<|tool_response>') ? known(['</s>']) : []),
  ]);
  const control = known(END_TEXTS);
  const ends = eos === undefined ? [] : [eos];
  ends.push(...['eos', 'eot', 'eom', 'eog'].flatMap((name) => namedTokens(get, name, size)), ...control);
  for (const row of [...INFILL, ...INFILL_ENDS]) {
    const [keys, texts] = row;
    const named = keys.flatMap((key) => namedTokens(get, key, size));
    const found = named.length > 0 ? [] : known(texts);
    control.push(...found);
    if (INFILL_ENDS.includes(row)) ends.push(...named, ...found);
  }
  const matters = (/** @type {number} */ id) => !harmless.has(id);
  return { ends: ends.filter(matters), control: control.filter(matters) };
}

/**
 * Tells whether a special token takes the white space before or after it. GGUF files do not say so.
 * @param {unknown} pre  tokenizer.ggml.pre
 * @param {Record<string, unknown>} metadata
 * @returns {(text: string) => { stripLeft?: boolean, stripRight?: boolean }}
 */
export function stripping(pre, metadata) {
  const model = String(metadata['general.name']).toLowerCase();
  const architecture = String(metadata['general.architecture']);
  if (/jina-v2-(de|es|code)/.test(String(pre)) || /nomic-bert-moe|jina-bert-v3/.test(architecture))
    return (text) => ({ stripLeft: text === '<mask>' });
  if (/phi-?3/.test(model)) {
    const exact = ['<unk>', '<s>', '<|endoftext|>'];
    return (text) => ({ stripRight: !exact.includes(text) });
  }
  if (model.includes('modern-bert')) return (text) => ({ stripLeft: text === '[MASK]' });
  return () => ({});
}
