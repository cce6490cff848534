// As much of a page as the client looks at.

export class FakePage {
  readonly window = new EventTarget();
  readonly document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  readonly stored = new Map<string, string>();
  listeners = 0;

  /** Puts it where the client looks. Returns what takes it away. */
  install(): () => void {
    const sessionStorage = {
      getItem: (key: string) => this.stored.get(key) ?? null,
      setItem: (key: string, value: string) => void this.stored.set(key, value),
      removeItem: (key: string) => void this.stored.delete(key),
    };
    for (const target of [this.window, this.document]) {
      const { addEventListener, removeEventListener } = target;
      target.addEventListener = (...given) => void ((this.listeners += 1), addEventListener.apply(target, given as never));
      target.removeEventListener = (...given) => void ((this.listeners -= 1), removeEventListener.apply(target, given as never));
    }
    const globals = { window: this.window, document: this.document, sessionStorage, location: { origin: 'https://game.example' } };
    const before = Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
    for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    return () => {
      for (const [name, descriptor] of before) {
        if (descriptor) Object.defineProperty(globalThis, name, descriptor);
        else delete (globalThis as Record<string, unknown>)[name];
      }
    };
  }

  tell(target: 'window' | 'document', name: string): void {
    this[target].dispatchEvent(new Event(name));
  }

  show(visible: boolean): void {
    this.document.visibilityState = visible ? 'visible' : 'hidden';
    this.tell('document', 'visibilitychange');
  }
}
