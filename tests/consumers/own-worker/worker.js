/**
 * Contains nothing but the import of the rest: WebKit runs a worker's first script again if a chunk
 * of the build imports it.
 */
const main = import('./worker-main.js');
main.catch(reportError);

addEventListener('message', async ({ data }) => (await main).receive(data));
