/**
 * A short soak test: everything at once in two instances, with flat memory. `npm run soak` is the
 * long one.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { soak } from '../soak.js';

const ITERATIONS = 200;

test(`${ITERATIONS} iterations of everything in two instances leave memory flat`, async (t) => {
  const { aborted, linearBytes } = await soak({ iterations: ITERATIONS, seed: 1 });
  assert.ok(aborted >= 20 && aborted < 50, `${aborted} loads of 50 were aborted`);
  t.diagnostic(
    `ran: soak, ${ITERATIONS} iterations, ${aborted} aborted loads, ${linearBytes[0]} bytes of memory`,
  );
});
