// Checks what is published: its size, its API and its form. `node check.mjs --update` writes api.d.ts anew.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const SIZE_MAX = 4096;
const here = fileURLToPath(new URL('.', import.meta.url));
const read = (name) => readFileSync(here + name, 'utf8');
const failures = [];

// What an app has of it in the end: the bundler's minified code, as a server sends it.
const { outputFiles } = await build({
  entryPoints: [`${here}/dist/index.js`], bundle: true, minify: true, format: 'esm', target: 'es2022', write: false,
});
const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
console.log(`@duelhub/client: ${size} bytes, minified and gzipped (at most ${SIZE_MAX})`);
if (size > SIZE_MAX) failures.push('it is too large');

// The API, for whoever reviews a change of it.
const api = ['types', 'duel', 'ticket', 'react'].map((name) => `// ${name}\n${read(`dist/${name}.d.ts`)}`).join('\n').replaceAll(/^\/\/# .*\n/gm, '');
if (process.argv.includes('--update')) writeFileSync(`${here}/api.d.ts`, api);
else if (read('api.d.ts') !== api) failures.push('its API is not what api.d.ts says; if that is meant: node check.mjs --update');

for (const [tool, args] of [['publint', ['--strict']], ['attw', ['--pack', '.', '--profile', 'esm-only']]]) {
  try {
    execFileSync(`${here}/node_modules/.bin/${tool}`, args, { cwd: here, encoding: 'utf8' });
    console.log(`${tool}: nothing to say`);
  } catch ({ stdout, stderr }) {
    failures.push(`${tool}: ${stdout}${stderr}`);
  }
}

for (const failure of failures) console.error(failure);
process.exit(failures.length > 0 ? 1 : 0);
