/** Holds nothing but the rest: WebKit runs the first script of a worker again when a chunk of a build imports it. */
const main = import('./worker-main.js');
main.catch(reportError);

addEventListener('message', async ({ data }) => (await main).receive(data));
