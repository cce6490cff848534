// A terminal in which a newcomer pastes what a page shows.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { venvBin } from './tools.mjs';

const CLONE = fileURLToPath(new URL('../../..', import.meta.url));

/** Pastes `text` at the top of the clone; returns the JSON that is printed. */
export async function paste(text, variables = {}) {
  const env = { ...process.env, PATH: `${venvBin}:${process.env.PATH}`, ...variables };
  // As a terminal reads it, not as an argument: a heredoc ends at its line.
  const { stdout } = await promisify(execFile)('bash', ['-c', `${text}\n`], { env, cwd: CLONE, timeout: 30_000 });
  return JSON.parse(stdout);
}
