// A certificate authority of our own, and a certificate for the test's domains.

import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createHash, X509Certificate } from 'node:crypto';
import { join } from 'node:path';

/** Writes fullchain.pem and privkey.pem into `directory`; returns the authority (PEM) and the key's SPKI hash. */
export function makeCertificate(directory, domains) {
  const file = (name) => join(directory, name);
  const openssl = (...args) => execFileSync('openssl', args, { stdio: 'pipe' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

  openssl('req', '-x509', ...newKey, '-days', '2', '-subj', '/CN=duelhub test authority',
    '-keyout', file('ca.key'), '-out', file('ca.pem'));
  openssl('req', '-new', ...newKey, '-subj', `/CN=${domains[0]}`, '-keyout', file('privkey.pem'), '-out', file('csr.pem'));
  writeFileSync(file('san.cnf'), `subjectAltName=${domains.map((domain) => `DNS:${domain}`).join(',')}\n`);
  openssl('x509', '-req', '-in', file('csr.pem'), '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial',
    '-days', '2', '-extfile', file('san.cnf'), '-out', file('leaf.pem'));

  const leaf = readFileSync(file('leaf.pem'));
  const authority = readFileSync(file('ca.pem'));
  writeFileSync(file('fullchain.pem'), Buffer.concat([leaf, authority]));
  const spki = new X509Certificate(leaf).publicKey.export({ type: 'spki', format: 'der' });
  return { authority, spki: createHash('sha256').update(spki).digest('base64') };
}

/** Puts the certificate that lies in `from` into `directory`, too. */
export function copyCertificate(from, directory) {
  for (const name of ['fullchain.pem', 'privkey.pem']) copyFileSync(join(from, name), join(directory, name));
}
