// Sorts texts by how close their meaning is to a query.
//   node embeddings.mjs embedding-model.gguf "a small animal" "a mouse" "a train" "an elephant"
import { Llama } from 'fused-matmul/llama';

const [file, query, ...texts] = process.argv.slice(2);
const model = await Llama.load(file);
const [wanted, ...vectors] = await model.embed([query, ...texts]);
// Embeddings have length 1, so that the sum of the products is the cosine of the angle.
const cosines = vectors.map((vector) => vector.reduce((sum, value, i) => sum + value * wanted[i], 0));
for (const i of [...texts.keys()].sort((a, b) => cosines[b] - cosines[a]))
  console.log(cosines[i].toFixed(4), texts[i]);
model.dispose();
