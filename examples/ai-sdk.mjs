// A model behind Vercel's AI SDK. No server is started and nothing is sent: `local.fetch` answers.
//   npm install ai @ai-sdk/openai-compatible
//   node ai-sdk.mjs model.gguf "Why is the sky blue?"
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { streamText } from 'ai';
import { Llama } from 'fused-matmul/llama';
import { createOpenAI } from 'fused-matmul/openai';

const [file, prompt, template] = process.argv.slice(2); // a template only for a file that has none
const model = await Llama.load(file);
const local = createOpenAI(model, { name: 'local', template });
const provider = createOpenAICompatible({
  name: 'fused-matmul',
  baseURL: 'http://local/v1',
  fetch: local.fetch,
  includeUsage: true,
});
const { textStream, usage } = streamText({ model: provider('local'), prompt, maxOutputTokens: 60 });
for await (const piece of textStream) process.stdout.write(piece);
console.log(`\n${(await usage).outputTokens} tokens`);
model.dispose();
