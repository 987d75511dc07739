/**
 * The first script of the worker, which holds nothing but the rest: WebKit runs it a second time when a chunk of a build imports
 * it, and then there are two of all that is in it.
 */
const main = import('./worker-main.js');
main.catch(reportError);

addEventListener('message', async ({ data }) => (await main).receive(data));
