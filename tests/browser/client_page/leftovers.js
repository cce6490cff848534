// What the client leaves behind, counted where it takes it: timers, listeners of the page, sockets. Comes before the client.

(() => {
  const timers = new Set();
  for (const kind of ['Timeout', 'Interval']) {
    const [set, clear] = [window[`set${kind}`], window[`clear${kind}`]];
    window[`set${kind}`] = (run, ...rest) => {
      const id = set((...args) => {
        if (kind === 'Timeout') timers.delete(id);
        run(...args);
      }, ...rest);
      // WebKit's driver has timers in the page, too.
      if (new Error().stack.includes('/duelhub.js')) timers.add(id);
      return id;
    };
    window[`clear${kind}`] = (id) => {
      timers.delete(id);
      clear(id);
    };
  }

  const listeners = { count: 0 };
  for (const target of [window, document]) {
    const { addEventListener, removeEventListener } = target;
    target.addEventListener = function (...args) {
      listeners.count += 1;
      addEventListener.apply(target, args);
    };
    target.removeEventListener = function (...args) {
      listeners.count -= 1;
      removeEventListener.apply(target, args);
    };
  }

  const sockets = [];
  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  };

  window.leftovers = () => ({
    timers: timers.size,
    listeners: listeners.count,
    sockets: sockets.filter(({ readyState }) => readyState === WebSocket.CONNECTING || readyState === WebSocket.OPEN).length,
  });
})();
