// A deployment as in production: browser, nginx, a network that can be cut, the hub, a backend.

import { randomBytes } from 'node:crypto';

import { startBackend } from './backend.mjs';
import { startBrowser } from './browser.mjs';
import { makeCertificate } from './certificate.mjs';
import { controlAt } from './grpcurl.mjs';
import { request } from './https.mjs';
import { startHub } from './hub.mjs';
import { startNetwork } from './network.mjs';
import { startNginx } from './nginx.mjs';
import { freePorts } from './ports.mjs';
import { BOT_TOKEN } from './telegram.mjs';

/** The WebApp's own domain, another one that WEBAPP_URL allows, and one that it does not. */
export const DOMAIN = 'quiz.test';
export const FRIEND = 'app.test';
export const STRANGER = 'evil.test';
const DOMAINS = [DOMAIN, FRIEND, STRANGER];

/** Starts all of it in `directory`, nginx serving `webRoot`. */
export async function startStack({ binary, directory, webRoot }) {
  const [http, https] = await freePorts(2);
  const originOf = (domain) => `https://${domain}:${https}`;
  const secrets = {
    TELEGRAM_BOT_TOKEN: BOT_TOKEN,
    WEBSOCKET_TICKET_SECRET: randomBytes(32).toString('hex'),
    CONTROL_TOKEN: randomBytes(16).toString('hex'),
  };
  const hub = await startHub(binary, directory, {
    ...secrets,
    APP_ENV: 'production',
    WEBAPP_URL: [DOMAIN, FRIEND].map(originOf).join(','),
    // The most talkative, for what must not be in the log.
    LOG_LEVEL: 'trace',
  });
  const network = await startNetwork(hub.edge);
  const { authority, spki } = makeCertificate(directory, DOMAINS);
  const backend = await startBackend();
  const nginx = await startNginx({ directory, domain: DOMAIN, http, https, hub: network.address, backend, webRoot });
  const browser = await startBrowser({ domains: DOMAINS, spki });
  return {
    secrets, hub, network, nginx, browser, originOf,
    wsOrigin: `wss://${DOMAIN}:${https}`,
    call: controlAt(hub.control, secrets.CONTROL_TOKEN),
    /** A request to a path of the WebApp's domain, over https. */
    get: (path, options) => request(originOf(DOMAIN) + path, { ca: authority, ...options }),
    /** The same over plain http. */
    getPlain: (path) => request(`http://${DOMAIN}:${http}${path}`),
  };
}
