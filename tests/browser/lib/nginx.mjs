// The real nginx with the configuration that we ship, moved to a directory and ports of its own.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';

import { poll } from './check.mjs';
import { start } from './processes.mjs';

const SHIPPED = new URL('../../../deploy/nginx.conf', import.meta.url);

/**
 * Starts it for `domain` on the ports `http` and `https`, with the certificate that lies in `directory`.
 * Returns `logs()`: every log by its file's name.
 */
export async function startNginx({ directory, domain, http, https, hub, backend, webRoot }) {
  const logDirectory = join(directory, 'nginx-logs');
  mkdirSync(logDirectory);
  const site = join(directory, 'site.conf');
  writeFileSync(site, moved({ directory, logDirectory, domain, http, https, hub, backend, webRoot }));
  const main = join(directory, 'nginx.conf');
  writeFileSync(main, mainConfiguration(directory, logDirectory, site));
  execFileSync('nginx', ['-t', '-c', main, '-p', directory], { stdio: 'pipe' });
  start('nginx', ['-c', main, '-p', directory], { log: join(logDirectory, 'output.log') });
  if (!(await poll(() => accepts(https)))) throw new Error(`nginx does not listen:\n${logsIn(logDirectory)}`);
  return { logs: () => logsIn(logDirectory) };
}

function moved({ directory, logDirectory, domain, http, https, hub, backend, webRoot }) {
  const moves = [
    ['/etc/letsencrypt/live/your-domain.com/', `${directory}/`],
    ['/var/log/nginx/', `${logDirectory}/`],
    ['/var/www/webapp', webRoot],
    ['/var/www/html', `${directory}/acme`],
    ['your-domain.com', domain],
    ['listen 80;', `listen 127.0.0.1:${http};`],
    ['listen 443 ssl;', `listen 127.0.0.1:${https} ssl;`],
    ['server 127.0.0.1:8090;', `server ${hub};`],
    ['server 127.0.0.1:8080;', `server ${backend};`],
  ];
  let text = readFileSync(SHIPPED, 'utf8');
  for (const [from, to] of moves) {
    // Otherwise the test would run with something that is not what we ship, on paths that are not its own.
    if (!text.includes(from)) throw new Error(`deploy/nginx.conf has no "${from}" any more`);
    text = text.replaceAll(from, to);
  }
  return text;
}

function mainConfiguration(directory, logDirectory, site) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${directory}/${name};`,
  );
  // The master of root would start workers that may not read a private directory.
  const user = process.getuid() === 0 ? `user ${userInfo().username};` : '';
  return `
    daemon off;
    ${user}
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

function logsIn(directory) {
  return Object.fromEntries(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), 'utf8')]));
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(socket.destroy()));
    socket.once('error', () => resolve(false));
  });
}
