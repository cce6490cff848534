// The real nginx with the configurations that we ship, moved to a directory and ports of its own.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';

import { poll } from './check.mjs';
import { start } from './processes.mjs';

const SHIPPED = new URL('../../../deploy/', import.meta.url);

// The master of root would start workers that may not read a private directory.
export const USER = process.getuid() === 0 ? `user ${userInfo().username};\n` : '';

/**
 * Starts it for `domain` on the ports `http` and `https`, with the certificate that lies in `directory`.
 * Returns `logs()`: every log by its file's name.
 */
export async function startNginx({ directory, domain, http, https, hub, backend, webRoot }) {
  const logDirectory = join(directory, 'nginx-logs');
  mkdirSync(logDirectory);
  const site = join(directory, 'site.conf');
  writeFileSync(site, moved('nginx.conf', [
    ['/etc/letsencrypt/live/your-domain.com/', `${directory}/`],
    ['/var/log/nginx/', `${logDirectory}/`],
    ['/var/www/webapp', webRoot],
    ['/var/www/html', `${directory}/acme`],
    ['your-domain.com', domain],
    ['listen 80;', `listen 127.0.0.1:${http};`],
    ['listen 443 ssl;', `listen 127.0.0.1:${https} ssl;`],
    ['server 127.0.0.1:8090;', `server ${hub};`],
    ['server 127.0.0.1:8080;', `server ${backend};`],
  ]));
  return run({ directory, logDirectory, main: mainConfiguration(directory, logDirectory, site), port: https });
}

/**
 * Starts the nginx of several nodes, those of compose.yaml, on the ports `edge` and `control`. A connection from `gateway` comes
 * from the TLS proxy in front. Returns the same.
 */
export async function startNodesNginx({ directory, edge, control, nodes, gateway }) {
  const logDirectory = join(directory, 'nginx-logs');
  mkdirSync(logDirectory);
  const site = join(directory, 'nodes.conf');
  const addresses = nodes.flatMap((node, nth) => [
    [`server node${nth + 1}:8090 `, `server ${node.edge} `],
    [`server node${nth + 1}:50051 `, `server ${node.control} `],
  ]);
  writeFileSync(site, moved('nginx-nodes.conf', [
    ...addresses,
    ['/var/log/nginx/', `${logDirectory}/`],
    ['listen 8080;', `listen 127.0.0.1:${edge};`],
    ['listen 50051 http2;', `listen 127.0.0.1:${control} http2;`],
    ['set_real_ip_from  172.30.0.1;', `set_real_ip_from ${gateway};`],
  ]));
  const main = moved('nginx-main.conf', [
    ['/tmp/', `${directory}/`],
    ['/var/log/nginx/', `${logDirectory}/`],
    ['/etc/nginx/conf.d/*.conf', site],
  ]);
  return run({ directory, logDirectory, main: `daemon off;\n${USER}${main}`, port: edge });
}

async function run({ directory, logDirectory, main: text, port }) {
  const main = join(directory, 'nginx.conf');
  writeFileSync(main, text);
  execFileSync('nginx', ['-t', '-c', main, '-p', directory], { stdio: 'pipe' });
  start('nginx', ['-c', main, '-p', directory], { log: join(logDirectory, 'output.log') });
  if (!(await poll(() => accepts(port)))) throw new Error(`nginx does not listen:\n${logsIn(logDirectory)}`);
  return { logs: () => logsIn(logDirectory) };
}

/** A file of deploy/ with other addresses and paths. */
export function moved(name, moves) {
  let text = readFileSync(new URL(name, SHIPPED), 'utf8');
  for (const [from, to] of moves) {
    // Otherwise the test would run with something that is not what we ship, on paths that are not its own.
    if (!text.includes(from)) throw new Error(`deploy/${name} has no "${from}" any more`);
    text = text.replaceAll(from, to);
  }
  return text;
}

function mainConfiguration(directory, logDirectory, site) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${directory}/${name};`,
  );
  return `
    daemon off;
    ${USER}
    worker_processes 2;
    pid ${directory}/nginx.pid;
    error_log ${logDirectory}/main-error.log info;
    events { worker_connections 1024; }
    http {
      include /etc/nginx/mime.types;
      default_type application/octet-stream;
      gzip on;
      ${temporary.join('\n      ')}
      include ${site};
    }
  `;
}

export function logsIn(directory) {
  return Object.fromEntries(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), 'utf8')]));
}

export function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(socket.destroy()));
    socket.once('error', () => resolve(false));
  });
}
