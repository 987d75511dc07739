// Reads facts out of a text, as JSON of a schema.
//   node json.mjs model.gguf "Anna, 31, has a dog called Rex."
import { Llama } from 'fused-matmul/llama';

const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 20 },
    age: { type: 'integer', minimum: 0 },
    pets: { type: 'array', items: { enum: ['cat', 'dog', 'fish', 'other'] }, maxItems: 3 },
  },
  required: ['name', 'age', 'pets'],
  additionalProperties: false,
};
const [file, text] = process.argv.slice(2);
const model = await Llama.load(file);
const question = `Describe the person as JSON with name, age and pets.\n\n${text}`;
const answer = await model.chat([{ role: 'user', content: question }], {
  responseFormat: { type: 'json_schema', schema },
  temperature: 0,
  maxTokens: 100,
});
const json = await answer.text();
console.log(answer.stats.finishReason === 'end' ? JSON.parse(json) : `not complete: ${json}`);
model.dispose();
