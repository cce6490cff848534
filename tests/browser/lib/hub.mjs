// The hub under test, on free ports.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { poll } from './check.mjs';
import { start } from './processes.mjs';

const PORTS = { WEBSOCKET_PORT: '0', CONTROL_PORT: '0', ADMIN_PORT: '0' };

/**
 * Starts the binary with nothing but `variables` in its environment, on free ports unless an env file says which.
 * Returns the addresses on which it serves, as host:port, `log()`, what it has written so far, and the process.
 */
export async function startHub(binary, directory, variables = {}, envFile) {
  const file = join(directory, 'hub.log');
  const [args, ports] = envFile ? [['--env-file', envFile], {}] : [[], PORTS];
  const child = start(binary, args, { log: file, cwd: directory, env: { ...ports, ...variables } });
  const log = () => readFileSync(file, 'utf8');
  const addresses = await poll(() => child.exitCode !== null || servingLine(log()));
  if (typeof addresses !== 'object') throw new Error(`the hub does not serve:\n${log()}`);
  return { ...addresses, log, child };
}

/** Readable in development, JSON in production. */
function servingLine(log) {
  const plain = log.replaceAll(/\x1b\[[0-9;]*m/g, '');
  const line = plain.split('\n').find((candidate) => /\bserving\b/.test(candidate) && candidate.includes('admin'));
  const address = (name) => line?.match(new RegExp(`\\b${name}(?:=|":")([0-9.]+:[0-9]+)`))?.[1];
  const [edge, control, admin] = ['edge', 'control', 'admin'].map(address);
  return admin && { edge, control, admin };
}
