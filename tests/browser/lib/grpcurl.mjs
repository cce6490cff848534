// The control plane, spoken to as an operator does: with grpcurl.

import { execFile } from 'node:child_process';
import { join } from 'node:path';

import { venvBin } from './tools.mjs';

const GRPCURL = join(venvBin, 'grpcurl');

/** Calls of ControlService at `address`: (method, request) => the answer, or throws with what grpcurl said. */
export function controlAt(address, token) {
  const auth = token ? ['-H', `authorization: Bearer ${token}`] : [];
  return (method, request) =>
    new Promise((resolve, reject) => {
      const args = ['-plaintext', ...auth, '-d', JSON.stringify(request), address, `duelhub.v1.ControlService/${method}`];
      execFile(GRPCURL, args, { timeout: 15_000 }, (error, stdout, stderr) => {
        if (error) reject(new Error(`${method}: ${stderr.trim() || error.message}`));
        else resolve(JSON.parse(stdout));
      });
    });
}
