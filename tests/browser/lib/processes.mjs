// What a part has started, and how all of it ends: the last started first, processes by their id.

import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { once } from 'node:events';

const STOP_WITHIN_MS = 8_000;
const stops = [];
let stopping;

/** Has `stop` called at the end of the part. */
export function onStop(stop) {
  stops.push(stop);
}

/** Stops everything, once, however many ask for it. */
export function stopAll() {
  stopping ??= stopEach();
  return stopping;
}

async function stopEach() {
  while (stops.length > 0) await stops.pop()();
}

/** Starts a program whose output, both streams of it, goes to the file `log`. It is stopped at the end of the part. */
export function start(program, args, { log, env, cwd }) {
  const file = openSync(log, 'w');
  const child = spawn(program, args, { env, cwd, stdio: ['ignore', file, file] });
  closeSync(file);
  onStop(() => stop(child));
  return child;
}

async function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
  await exited;
  clearTimeout(kill);
}

for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await stopAll();
    process.exit(1);
  });
}
