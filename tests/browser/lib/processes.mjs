// What a part has started, and how all of it ends: the last started first, processes by their id.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
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

/** Sends `signal` to a program and to all that it has started, and they: SIGSTOP is what sleep is to them, SIGCONT its end. */
export function signalTree(child, signal) {
  const tree = [child.pid];
  const parents = new Map(readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map((pid) => [Number(pid), parentOf(pid)]));
  // It grows while it is walked.
  for (const parent of tree) for (const [pid, of] of parents) if (of === parent) tree.push(pid);
  for (const pid of tree) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended.
    }
  }
}

function parentOf(pid) {
  try {
    return Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/^PPid:\s+(\d+)/m)[1]);
  } catch {
    return 0;
  }
}

for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await stopAll();
    process.exit(1);
  });
}
