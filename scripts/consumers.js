/**
 * `npm run test:consumers`: the tests of the tarball, including the apps whose tools have to be
 * installed first.
 */
import { main } from './setup/run.js';
import { test } from './test.js';

process.env.FM_CONSUMERS = '1';
await main(() =>
  test(['tests/package/consumers.test.js', 'tests/package/consumers-more.test.js', ...process.argv.slice(2)]),
);
