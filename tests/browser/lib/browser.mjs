// Chromium with a profile of its own.

import { onStop } from './processes.mjs';
import { chromium, chromiumPath } from './tools.mjs';

const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** `domains` are resolved to this machine; of all unknown certificates, only the one with the key `spki` is accepted. */
export async function startBrowser({ domains = [], spki } = {}) {
  const rules = domains.map((domain) => `MAP ${domain} 127.0.0.1`).join(',');
  const args = [
    ...ARGS,
    ...(rules ? [`--host-resolver-rules=${rules}`] : []),
    ...(spki ? [`--ignore-certificate-errors-spki-list=${spki}`] : []),
  ];
  // Signals are for us: everything is stopped in its order.
  const signals = { handleSIGHUP: false, handleSIGINT: false, handleSIGTERM: false };
  const browser = await chromium.launch({ executablePath: chromiumPath, args, ...signals });
  onStop(() => browser.close());
  return browser;
}

/** Collects what a page complains about: errors on its console, exceptions, requests that failed. */
export function complaintsOf(page) {
  const complaints = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('requestfailed', (failed) => complaints.push(`${failed.url()}: ${failed.failure().errorText}`));
  return complaints;
}
