// Builds dist/: the package as two ES modules with source maps, and their types.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const common = { absWorkingDir: here, outdir: 'dist', bundle: true, format: 'esm', target: 'es2022', sourcemap: true, logLevel: 'warning' };

rmSync(`${here}/dist`, { recursive: true, force: true });
await build({ ...common, entryPoints: ['src/index.ts'] });
await build({ ...common, entryPoints: ['src/react.ts'], external: ['react', './index.js'] });
execFileSync('node_modules/.bin/tsc', [], { cwd: here, stdio: 'inherit' });
