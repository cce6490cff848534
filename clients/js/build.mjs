// Builds dist/: the package as two ES modules with source maps, and their types. And the package in one file for pages without a
// build step, which is committed: the hub, whose demo page is one of them, is built without Node.js.
//
//     node build.mjs            builds all of it
//     node build.mjs --check    builds nothing; fails if a committed file is not what would be built

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const COMMITTED = ['webapp/vendor/duelhub.js', 'examples/vanilla/duelhub.js'];
const shared = { absWorkingDir: here, bundle: true, format: 'esm', target: 'es2022', logLevel: 'warning' };

/** Returns the package in one file, to be read: not minified. */
async function readable() {
  const banner = { js: '// @duelhub/client. Made from clients/js/src by clients/js/build.mjs: change it there.\n' };
  const { outputFiles } = await build({ ...shared, entryPoints: ['src/index.ts'], banner, write: false });
  return outputFiles[0].text;
}

const file = await readable();
const committed = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
if (process.argv.includes('--check')) {
  const stale = COMMITTED.filter((path) => readFileSync(committed(path), 'utf8') !== file);
  if (stale.length > 0) {
    console.error(`Not what clients/js/src builds: ${stale.join(', ')}. Run \`npm run build\` in clients/js, and commit.`);
    process.exit(1);
  }
} else {
  rmSync(`${here}/dist`, { recursive: true, force: true });
  const dist = { ...shared, outdir: 'dist', sourcemap: true };
  await build({ ...dist, entryPoints: ['src/index.ts'] });
  await build({ ...dist, entryPoints: ['src/react.ts'], external: ['react', './index.js'] });
  execFileSync('node_modules/.bin/tsc', [], { cwd: here, stdio: 'inherit' });
  for (const path of COMMITTED) writeFileSync(committed(path), file);
}
