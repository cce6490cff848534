"""A network that fails, between an example and the hub."""

import re
import socket
import struct
import threading

# An epoch in an answer: once the push has been sent, what has one says where the event is stored.
EPOCH = re.compile(rb"[0-9a-f]{16}")
# l_onoff, l_linger: closing sends RST, as a host does that has just come up again.
RESET = struct.pack("ii", 1, 0)


class Relay:
    """Resets the first connection. Forwards the others, but takes the first answer to the push of `key` to be lost: it calls
    `at_loss` and resets the connection."""

    def __init__(self, hub, key, at_loss):
        self._hub, self._key, self._at_loss = hub, key, at_loss
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self.refused = self.lost = 0
        self._pushed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # shutdown() wakes accept(), which close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refused == 0:
                self.refused = 1
                _reset(client)
            else:
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client):
        try:
            host, port = self._hub().rsplit(":", 1)
            server = socket.create_connection((host, int(port)))
        except OSError:
            _reset(client)
            return
        threading.Thread(target=self._upwards, args=[client, server], daemon=True).start()
        self._downwards(server, client)

    def _upwards(self, client, server):
        """Up to the hub. Ends with either side; an example sends its whole push in one piece."""
        try:
            while piece := client.recv(65536):
                self._pushed = self._pushed or self._key in piece
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(server)

    def _downwards(self, server, client):
        try:
            while piece := server.recv(65536):
                if self._pushed and self.lost == 0 and EPOCH.search(piece):
                    self.lost = 1
                    self._at_loss()
                    break
                client.sendall(piece)
            else:
                client.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        _reset(client)
        _reset(server)


def _reset(peer):
    try:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        # Another thread may be in recv(): without this the descriptor would live until that returns.
        peer.shutdown(socket.SHUT_RD)
        peer.close()
    except OSError:
        pass
