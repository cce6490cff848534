"""A WebSocket client (RFC 6455), as much of one as a player needs who only reads frames, pings and acks."""

import base64
import json
import os
import socket
import struct
from urllib.parse import quote

from .hub import DEADLINE_S

_TEXT, _CLOSE = 1, 8


class Closed(Exception):
    """The hub closed the connection."""

    def __init__(self, code, reason):
        super().__init__(f"closed with {code} {reason!r}")
        self.code, self.reason = code, reason


class Player:
    """One connection. `Player(hub.edge, ticket)` has opened it, but the hub has yet to look at the ticket."""

    def __init__(self, address, ticket):
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), DEADLINE_S)
        self._reader = self._socket.makefile("rb")
        self._handshake(address, ticket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def text(self):
        """The next text frame as it is; raises Closed at the end."""
        kind, body = self._frame()
        while kind not in (_TEXT, _CLOSE):
            kind, body = self._frame()
        if kind == _CLOSE:
            raise Closed(struct.unpack("!H", body[:2])[0], body[2:].decode())
        return body.decode()

    def next(self, *types):
        """The next frame of one of `types`; frames of other types are passed over."""
        frame = json.loads(self.text())
        while frame["type"] not in types:
            frame = json.loads(self.text())
        return frame

    def rest(self):
        """All frames up to the end, and how it ended."""
        frames = []
        try:
            while True:
                frames.append(json.loads(self.text()))
        except Closed as closed:
            return frames, closed

    def send(self, frame):
        self._send(_TEXT, json.dumps(frame).encode())

    def leave(self):
        """Goes as a browser does whose tab is closed: close frame, then the socket."""
        try:
            self._send(_CLOSE, struct.pack("!H", 1000))
        except OSError:
            pass  # The hub was first.
        self._socket.close()

    def vanish(self):
        """Goes as a phone does that loses its network, but for the kernel's FIN: without a close frame."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _handshake(self, address, ticket):
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /ws?ticket={quote(ticket)} HTTP/1.1", f"Host: {address}", "Upgrade: websocket",
            "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
        ]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = self._reader.readline()
        if b" 101 " not in status:
            raise AssertionError(f"no WebSocket: {status!r}")
        while self._reader.readline().strip():
            pass

    def _frame(self):
        first, length = self._read(2)
        if length == 126:
            length = struct.unpack("!H", self._read(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self._read(8))[0]
        return first & 0x0F, self._read(length)

    def _read(self, count):
        body = self._reader.read(count)
        if len(body) < count:
            raise ConnectionError("the hub dropped the connection without a close frame")
        return body

    def _send(self, kind, body):
        # What a client sends is masked (section 5.3); all of it is shorter than 126 bytes.
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
        self._socket.sendall(bytes([0x80 | kind, 0x80 | len(body)]) + mask + masked)
