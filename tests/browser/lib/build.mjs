// The newcomer's page as Vite builds it for a real WebApp's domain.

import { execFileSync } from 'node:child_process';
import { cpSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../../webapp', import.meta.url));
const NOT_SOURCE = new Set(['node_modules', 'dist']);

/** Builds a copy of webapp/ in `directory` for `variables`; returns where the built files are. */
export function buildPage(directory, variables) {
  const copy = join(directory, 'page');
  cpSync(SOURCE, copy, { recursive: true, filter: (path) => !NOT_SOURCE.has(basename(path)) });
  const npm = (...args) =>
    execFileSync('npm', args, { cwd: copy, stdio: 'pipe', env: { ...process.env, ...variables } });
  npm('ci', '--no-audit', '--no-fund', '--loglevel=error');
  npm('run', 'build');
  return join(copy, 'dist');
}
