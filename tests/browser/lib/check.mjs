// Assertions that are counted, and the frame in which a part of the tests runs.

import { isDeepStrictEqual, inspect } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';

import { stopAll } from './processes.mjs';

const POLL_EVERY_MS = 20;
const DEADLINE_MS = 10_000;

let passed = 0;
let failed = 0;

/** Counts one assertion. */
export function ok(condition, what, details = '') {
  if (condition) {
    passed += 1;
    if (process.env.VERBOSE) console.log(`ok      ${what}`);
  } else {
    failed += 1;
    console.log(`FAILED  ${what}${details && `\n        ${details}`}`);
  }
}

export function equal(actual, expected, what) {
  const details = `expected ${inspect(expected, { depth: 5 })}\n        but was  ${inspect(actual, { depth: 5 })}`;
  ok(isDeepStrictEqual(actual, expected), what, details);
}

/** Waits for `probe` to give something truthy, which it returns. Without it the rest makes no sense, so it throws. */
export async function until(what, probe, deadlineMs = DEADLINE_MS) {
  const result = await poll(probe, deadlineMs);
  if (!result) throw new Error(`not within ${deadlineMs / 1000} s: ${what}`);
  ok(true, what);
  return result;
}

/** Waits until `probe` gives something truthy; undefined when it does not. */
export async function poll(probe, deadlineMs = DEADLINE_MS) {
  const deadline = Date.now() + deadlineMs;
  while (Date.now() < deadline) {
    const result = await probe();
    if (result) return result;
    await sleep(POLL_EVERY_MS);
  }
  return undefined;
}

/** Runs a part of the tests, stops whatever it has started, prints its counts and exits. */
export async function part(name, run) {
  console.log(`== ${name}`);
  try {
    await run();
  } catch (error) {
    ok(false, error.stack);
  }
  await stopAll();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}
