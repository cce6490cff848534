// Redis with a replica, and a sentinel that says which of them is the master.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { until } from './check.mjs';
import { freePorts } from './ports.mjs';
import { start } from './processes.mjs';

/** How long the master may be silent until the sentinel takes it for dead. */
const DOWN_AFTER_MS = 1000;

export async function startRedis(directory) {
  mkdirSync(directory, { recursive: true });
  const [first, second, sentinel] = await freePorts(3);
  const run = (name, args) =>
    start('redis-server', args, { log: join(directory, `${name}.log`), cwd: directory, env: process.env });
  const server = (port) =>
    run(port, ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dbfilename', `${port}.rdb`,
      '--repl-diskless-sync-delay', '0', ...(port === first ? [] : ['--replicaof', '127.0.0.1', first])].map(String));
  const master = server(first);
  server(second);
  const replication = (port) => ask(port, 'info', 'replication');
  await until('the replica is there', async () => /slave0:.*state=online/.test(await replication(first)));

  const file = join(directory, 'sentinel.conf');
  writeFileSync(file, [
    `port ${sentinel}`, 'bind 127.0.0.1', `sentinel monitor game 127.0.0.1 ${first} 1`,
    `sentinel down-after-milliseconds game ${DOWN_AFTER_MS}`, 'sentinel failover-timeout game 6000', '',
  ].join('\n'));
  run('sentinel', [file, '--sentinel']);
  await until('the sentinel knows the replica', async () => /slaves=1/.test(await ask(sentinel, 'info', 'sentinel')));
  return {
    url: `redis+sentinel://127.0.0.1:${sentinel}/game`,
    /** Waits until the replica has everything. */
    caughtUp: () =>
      until('the replica has everything', async () => {
        const text = await replication(first);
        const offset = (pattern) => text.match(pattern)?.[1];
        return offset(/master_repl_offset:(\d+)/) === offset(/slave0:.*offset=(\d+)/);
      }),
    /** Kills the master; returns once it is gone. */
    failOver: async () => {
      const exited = once(master, 'exit');
      master.kill('SIGKILL');
      await exited;
    },
  };
}

async function ask(port, ...command) {
  try {
    return (await promisify(execFile)('redis-cli', ['-p', String(port), ...command])).stdout;
  } catch {
    return '';
  }
}
