"""Processes for faults to happen to: hubs on ports of their own, Redis servers, a node exporter."""

import hashlib
import hmac
import json
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import quote, urlencode

import grpc
from support.backend import Backend
from support.hub import Hub, until
from support.player import Player
from support.stubs import pb

BOT_TOKEN = "123456:a-bot-token-for-tests"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine(Hub):
    """A hub that may be stopped, killed and started again on the same ports and the same store."""

    def __init__(self, binary, folder, **variables):
        self._binary = binary
        self._hears = True
        self._variables = {
            "TELEGRAM_BOT_TOKEN": BOT_TOKEN,
            "DATA_DIR": str(folder),
            "WEBSOCKET_CLIENT_TIMEOUT_SECONDS": "600",
            "WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE": "1000000",
        } | {name: str(free_port()) for name in ("WEBSOCKET_PORT", "CONTROL_PORT", "ADMIN_PORT")} | variables
        self.start()

    def start(self):
        super().__init__(self._binary, **self._variables)
        self.__enter__()

    def signal(self, number):
        self._process.send_signal(number)

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self.signal(signal.SIGKILL)
        self._process.wait()

    def plug_ears(self):
        """Nobody reads its log from now on."""
        self._hears = False

    def _read(self):
        for line in self._process.stdout:
            self._lines.append(line.rstrip("\n"))
            if not self._hears:
                return

    def backend(self):
        return Backend(self.control)

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)


class Daemon:
    """Another program, killed at the end."""

    def __init__(self, *command, cwd=None):
        self._process = subprocess.Popen([str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        # A stopped process takes SIGKILL, too.
        self._process.kill()
        self._process.wait()


class Redis(Daemon):
    def __init__(self, folder):
        self.port = free_port()
        super().__init__("redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        self.url = f"redis://127.0.0.1:{self.port}"
        until(lambda: self._answers(), "redis-server")

    def _answers(self):
        return subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True).stdout == b"PONG\n"

    def connection(self):
        return socket.create_connection(("127.0.0.1", self.port))


def init_data(user):
    """What Telegram signs for a WebApp (core.telegram.org/bots/webapps, "Validating data")."""
    fields = {"auth_date": str(int(time.time())), "user": json.dumps({"id": user, "first_name": "A"})}
    lines = "\n".join(f"{key}={fields[key]}" for key in sorted(fields))
    key = hmac.digest(b"WebAppData", BOT_TOKEN.encode(), hashlib.sha256)
    return urlencode(fields | {"hash": hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()}, quote_via=quote)


def ticket_over_http(hub, duel, data):
    """Asks the ticket API; returns the status."""
    request = urllib.request.Request(f"http://{hub.edge}/api/duel/ws-ticket?duel_id={duel}",
                                     headers={"X-Telegram-Init-Data": data})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def enter(hub, backend, duel, user, role=pb.ROLE_PLAYER):
    """A player who is in the duel, and the `connected` frame."""
    player = Player(hub.edge, backend.call("IssueTicket", duel_id=duel, user_id=user, role=role).ticket)
    return player, player.next("connected")


def background(work):
    threading.Thread(target=work, daemon=True).start()


class Loops:
    """Things that are done again and again until the end."""

    def __init__(self):
        self._ended = threading.Event()

    def every(self, seconds, work):
        """Failures of the hub are what the tests are about; they do not end the loop."""
        def loop():
            while not self._ended.wait(seconds):
                try:
                    work()
                except (grpc.RpcError, OSError, AssertionError):
                    pass
        background(loop)

    def end(self):
        self._ended.set()
