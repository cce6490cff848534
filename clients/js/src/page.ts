// What happens to the page. Outside of browsers none of it does.

export interface PageListener {
  /** The page goes away, perhaps to come back (the back/forward cache, a frozen tab). No timer may be trusted from here on. */
  sleep(): void;
  /** The page is here, and may have been away: in the background, asleep, without a network. */
  wake(): void;
}

interface TelegramWebApp {
  onEvent?(name: string, listener: () => void): void;
  offEvent?(name: string, listener: () => void): void;
}

/** Returns the function that ends it. */
export function watchPage({ sleep, wake }: PageListener): () => void {
  if (typeof document === 'undefined') return () => {};
  const shown = (): void => {
    if (document.visibilityState === 'visible') wake();
  };
  const rows: [EventTarget, string, () => void][] = [
    [window, 'pagehide', sleep],
    [document, 'freeze', sleep],
    [window, 'pageshow', wake],
    [document, 'resume', wake],
    [window, 'online', wake],
    [window, 'offline', wake],
    [document, 'visibilitychange', shown],
  ];
  for (const [target, name, listener] of rows) target.addEventListener(name, listener);
  const telegram = (window as { Telegram?: { WebApp?: TelegramWebApp } }).Telegram?.WebApp;
  telegram?.onEvent?.('activated', wake);
  return () => {
    for (const [target, name, listener] of rows) target.removeEventListener(name, listener);
    telegram?.offEvent?.('activated', wake);
  };
}
