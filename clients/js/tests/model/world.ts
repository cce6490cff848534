// A hub, a network, a page and a clock that a test moves.

import { vi } from 'vitest';

import type { ConnectOptions } from '../../src/index.js';
import { App } from './app.js';
import { ModelHub } from './hub.js';
import { Network } from './network.js';
import { FakePage } from './page.js';

export class World {
  readonly hub = new ModelHub();
  readonly network = new Network(this.hub);
  readonly page = new FakePage();
  readonly #uninstall: () => void;
  readonly #apps: App[] = [];
  #asleep = 0;

  constructor(seed = 1) {
    let state = seed;
    // Numerical Recipes' generator, so that a failure can be repeated.
    vi.spyOn(Math, 'random').mockImplementation(() => (state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32) / 2 ** 32);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'] });
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + this.#asleep);
    this.#uninstall = this.page.install();
  }

  open(options?: Partial<ConnectOptions>): App {
    const app = new App(this.network, this.hub, options);
    this.#apps.push(app);
    return app;
  }

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(ms);
  }

  /** The page is held up: time passes, and its timers come so much later. */
  sleep(ms: number): void {
    this.setClock(ms);
    this.#asleep += ms;
  }

  /** Somebody sets the device's clock forward by so much. */
  setClock(ms: number): void {
    vi.setSystemTime(Date.now() + ms);
  }

  end(): void {
    for (const { duel } of this.#apps) duel.close();
    this.#uninstall();
    vi.restoreAllMocks();
    vi.useRealTimers();
  }
}
