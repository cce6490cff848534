// Firefox, spoken to by WebDriver BiDi, which is built in.

import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { callText, resultOf } from './calling.mjs';
import { poll } from './check.mjs';
import { onStop, signalTree, start } from './processes.mjs';
import { WebSocket } from './tools.mjs';

const ANSWER_WITHIN_MS = 30_000;

// Nothing but the pages talks to anybody, and the tests may open windows.
const PREFERENCES = {
  'app.normandy.enabled': false,
  'app.update.disabledForTesting': true,
  'browser.safebrowsing.downloads.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.disable_open_during_load': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'toolkit.telemetry.enabled': false,
};

export async function startFirefox(directory) {
  const profile = join(directory, 'firefox');
  mkdirSync(profile, { recursive: true });
  const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
  writeFileSync(join(profile, 'user.js'), lines.join(''));
  const child = start('firefox-esr', ['--headless', '--no-remote', '--remote-debugging-port', '0', '--profile', profile], {
    log: join(directory, 'firefox.log'), env: { ...process.env, HOME: profile },
  });
  const port = await poll(() => portIn(profile), 60_000);
  if (!port) throw new Error('Firefox does not start');
  const bidi = await BiDi.connect(port);
  const { capabilities } = await bidi.send('session.new', { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
  onStop(() => bidi.quit());
  return {
    name: 'Firefox',
    version: capabilities.browserVersion,
    sleep: () => signalTree(child, 'SIGSTOP'),
    wake: () => signalTree(child, 'SIGCONT'),
    newPage: () => newPage(bidi, 'window'),
  };
}

function portIn(profile) {
  try {
    return JSON.parse(readFileSync(join(profile, 'WebDriverBiDiServer.json'), 'utf8')).ws_port;
  } catch {
    return undefined;
  }
}

class BiDi {
  #socket;
  #waiting = new Map(); // id → { resolve, reject, timer }
  #last = 0;

  static async connect(port) {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/session`);
    await once(socket, 'open');
    return new BiDi(socket);
  }

  constructor(socket) {
    this.#socket = socket;
    socket.on('message', (text) => this.#answer(JSON.parse(text)));
    socket.on('error', () => {});
  }

  send(method, params = {}) {
    const id = (this.#last += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#answer({ id, error: 'no answer', message: method }), ANSWER_WITHIN_MS);
      this.#waiting.set(id, { resolve, reject, timer, method });
      this.#socket.send(JSON.stringify({ id, method, params }));
    });
  }

  #answer({ id, result, error, message }) {
    const { resolve, reject, timer, method } = this.#waiting.get(id) ?? {};
    this.#waiting.delete(id);
    clearTimeout(timer);
    if (error) reject?.(new Error(`Firefox, ${method}: ${error}: ${message}`));
    else resolve?.(result);
  }

  async quit() {
    await this.send('browser.close').catch(() => {});
    this.#socket.terminate();
    for (const { timer } of this.#waiting.values()) clearTimeout(timer);
  }
}

async function newPage(bidi, type, referenceContext) {
  const { context } = await bidi.send('browsingContext.create', { type, referenceContext });
  return new FirefoxPage(bidi, context);
}

class FirefoxPage {
  #bidi;
  #context;
  #inFront;

  constructor(bidi, context) {
    [this.#bidi, this.#context] = [bidi, context];
  }

  goto(url) {
    return this.#send('browsingContext.navigate', { url, wait: 'complete' });
  }

  async evaluate(fn, ...args) {
    const { result, exceptionDetails } = await this.#bidi.send('script.callFunction', {
      functionDeclaration: `() => ${callText(fn, args)}`, awaitPromise: true, userActivation: true, target: { context: this.#context },
    });
    if (exceptionDetails) throw new Error(`in the page: ${exceptionDetails.text}`);
    return resultOf(result.value);
  }

  reload() {
    return this.#send('browsingContext.reload', { wait: 'complete' });
  }

  back() {
    return this.#send('browsingContext.traverseHistory', { delta: -1 });
  }

  forward() {
    return this.#send('browsingContext.traverseHistory', { delta: 1 });
  }

  async duplicate() {
    const before = await this.#all();
    await this.evaluate(() => void window.open(location.href));
    const context = await poll(async () => (await this.#all()).find((id) => !before.includes(id)));
    if (!context) throw new Error('Firefox opens no window');
    return new FirefoxPage(this.#bidi, context);
  }

  async #all() {
    return (await this.#bidi.send('browsingContext.getTree', { maxDepth: 0 })).contexts.map(({ context }) => context);
  }

  /** Behind another tab of its window. */
  async hide() {
    this.#inFront = await newPage(this.#bidi, 'tab', this.#context);
  }

  async show() {
    await this.#send('browsingContext.activate');
    await this.#inFront.close();
  }

  async setOffline(offline) {
    await this.#bidi.send('emulation.setNetworkConditions', {
      networkConditions: offline ? { type: 'offline' } : null, contexts: [this.#context],
    });
    return true;
  }

  close() {
    return this.#send('browsingContext.close');
  }

  #send(method, params) {
    return this.#bidi.send(method, { context: this.#context, ...params });
  }
}
