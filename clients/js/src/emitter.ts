// Listeners by name. One that throws harms nobody else: its error is thrown where the page's own errors are.

export class Emitter<N> {
  #listeners: { [K in keyof N]?: Set<(value: N[K]) => void> } = {};

  /** Returns the function that removes the listener. */
  on<K extends keyof N>(name: K, listener: (value: N[K]) => void): () => void {
    const listeners = (this.#listeners[name] ??= new Set());
    // Wrapped, so that one function can be given twice.
    const own = (value: N[K]): void => listener(value);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  clear(): void {
    this.#listeners = {};
  }

  emit<K extends keyof N>(name: K, value: N[K]): void {
    for (const listener of [...(this.#listeners[name] ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
