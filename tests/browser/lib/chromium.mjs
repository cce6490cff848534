// Chromium as its users have it. Where Playwright starts the browser itself, it is without the back/forward cache, and every page
// believes to be in front; so it is started here, and Playwright only talks to it.

import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { callText, resultOf } from './calling.mjs';
import { poll } from './check.mjs';
import { onStop, signalTree, start } from './processes.mjs';
import { chromium, chromiumPath } from './tools.mjs';

const ARGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-popup-blocking', '--remote-debugging-port=0',
];

/** Of all unknown certificates, it accepts only the one with the key `spki`. */
export async function startChromium(directory, spki) {
  const profile = join(directory, 'chromium');
  mkdirSync(profile, { recursive: true });
  const own = [`--user-data-dir=${profile}`, `--ignore-certificate-errors-spki-list=${spki}`];
  const child = start(chromiumPath, [...ARGS, ...own, 'about:blank'], {
    log: join(directory, 'chromium.log'), env: { ...process.env, HOME: profile },
  });
  const port = await poll(() => portIn(profile), 30_000);
  if (!port) throw new Error('Chromium does not start');
  const browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
  onStop(() => browser.close());
  const [context] = browser.contexts();
  const root = await browser.newBrowserCDPSession();
  const open = async () => {
    const opened = context.waitForEvent('page');
    await root.send('Target.createTarget', { url: 'about:blank', newWindow: true });
    return new ChromiumPage(context, await opened);
  };
  // One after the other: what opens is not said to be whose.
  let opening = Promise.resolve();
  return {
    name: 'Chromium',
    version: browser.version(),
    sleep: () => signalTree(child, 'SIGSTOP'),
    wake: () => signalTree(child, 'SIGCONT'),
    newPage() {
      const page = opening.then(open);
      opening = page.catch(() => {});
      return page;
    },
  };
}

function portIn(profile) {
  try {
    return readFileSync(join(profile, 'DevToolsActivePort'), 'utf8').split('\n')[0];
  } catch {
    return undefined;
  }
}

class ChromiumPage {
  #context;
  #page;
  #cdp;

  constructor(context, page) {
    [this.#context, this.#page] = [context, page];
  }

  async goto(url) {
    await this.#page.goto(url);
  }

  async evaluate(fn, ...args) {
    return resultOf(await this.#page.evaluate(callText(fn, args)));
  }

  async reload() {
    await this.#page.reload();
  }

  // A page that comes out of the cache has loaded long ago, so there is nothing more to wait for.
  async back() {
    await this.#page.goBack({ waitUntil: 'commit' });
  }

  async forward() {
    await this.#page.goForward({ waitUntil: 'commit' });
  }

  async duplicate() {
    const opened = this.#context.waitForEvent('page');
    await this.evaluate(() => void window.open(location.href));
    return new ChromiumPage(this.#context, await opened);
  }

  hide() {
    return this.#window('minimized');
  }

  show() {
    return this.#window('normal');
  }

  async #window(windowState) {
    const { windowId } = await this.#send('Browser.getWindowForTarget');
    await this.#send('Browser.setWindowBounds', { windowId, bounds: { windowState } });
  }

  async setOffline(offline) {
    await this.#send('Network.enable');
    await this.#send('Network.emulateNetworkConditions', { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
    return true;
  }

  freeze() {
    return this.#send('Page.setWebLifecycleState', { state: 'frozen' });
  }

  thaw() {
    return this.#send('Page.setWebLifecycleState', { state: 'active' });
  }

  close() {
    return this.#page.close();
  }

  async #send(method, params) {
    this.#cdp ??= await this.#context.newCDPSession(this.#page);
    return this.#cdp.send(method, params);
  }
}
