// Builds dist/: the package as two ES modules with source maps, and their types. And the package as the hub's own pages use it, which
// is committed, because the hub is built without Node.js: webapp/vendor/duelhub.js.
//
//     node build.mjs            builds all of it
//     node build.mjs --check    builds nothing; fails if the committed file is not what would be built

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const vendored = fileURLToPath(new URL('../../webapp/vendor/duelhub.js', import.meta.url));
const shared = { absWorkingDir: here, bundle: true, format: 'esm', target: 'es2022', logLevel: 'warning' };

/** Returns the package in one file, to be read: not minified. */
async function readable() {
  const banner = { js: '// @duelhub/client. Made from clients/js/src by clients/js/build.mjs: change it there.\n' };
  const { outputFiles } = await build({ ...shared, entryPoints: ['src/index.ts'], banner, write: false });
  return outputFiles[0].text;
}

const file = await readable();
if (process.argv.includes('--check')) {
  if (readFileSync(vendored, 'utf8') !== file) {
    console.error('webapp/vendor/duelhub.js is not what clients/js/src builds: run `npm run build` in clients/js, and commit it.');
    process.exit(1);
  }
} else {
  rmSync(`${here}/dist`, { recursive: true, force: true });
  const dist = { ...shared, outdir: 'dist', sourcemap: true };
  await build({ ...dist, entryPoints: ['src/index.ts'] });
  await build({ ...dist, entryPoints: ['src/react.ts'], external: ['react', './index.js'] });
  execFileSync('node_modules/.bin/tsc', [], { cwd: here, stdio: 'inherit' });
  mkdirSync(new URL('.', `file://${vendored}`), { recursive: true });
  writeFileSync(vendored, file);
}
