// One WebSocket of a page, without a WebApp around it.

/**
 * Opens `url` in `page`. After `connected` it closes it again and returns that frame and the subprotocol agreed on; after
 * a refusal, the frame (if one came), the close code, and how long the page had to wait for the end after the frame.
 */
export function openSocket(page, url, protocols = []) {
  const open = ([url, protocols]) =>
    new Promise((resolve) => {
      const socket = new WebSocket(url, protocols);
      let frame;
      let receivedAt;
      socket.onmessage = ({ data }) => {
        frame ??= JSON.parse(data);
        receivedAt ??= performance.now();
        if (frame.type !== 'connected') return;
        resolve({ frame, protocol: socket.protocol });
        socket.close();
      };
      socket.onclose = ({ code }) => resolve({ frame, code, waitedMs: performance.now() - receivedAt });
    });
  return page.evaluate(open, [url, protocols]);
}
