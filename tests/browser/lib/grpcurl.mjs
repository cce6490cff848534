// The control plane, spoken to as an operator does: with grpcurl.

import { execFile } from 'node:child_process';
import { join } from 'node:path';

import { venvBin } from './tools.mjs';

const GRPCURL = join(venvBin, 'grpcurl');

/**
 * Calls of ControlService at `address`: (method, request) => the answer, or throws with what grpcurl said. A stream is called with
 * a list of requests, and gives the list of answers.
 */
export function controlAt(address, token) {
  const auth = token ? ['-H', `authorization: Bearer ${token}`] : [];
  return (method, request) =>
    new Promise((resolve, reject) => {
      const args = ['-plaintext', ...auth, '-d', '@', address, `duelhub.v1.ControlService/${method}`];
      const options = { timeout: 15_000, maxBuffer: 16 << 20 };
      const child = execFile(GRPCURL, args, options, (error, stdout, stderr) => {
        if (error) reject(new Error(`${method}: ${stderr.trim() || error.message}`));
        else if (Array.isArray(request)) resolve(JSON.parse(`[${stdout.replaceAll(/^\}\n\{/gm, '},{')}]`));
        else resolve(JSON.parse(stdout));
      });
      child.stdin.on('error', () => {});
      child.stdin.end([request].flat().map((message) => JSON.stringify(message)).join('\n'));
    });
}
