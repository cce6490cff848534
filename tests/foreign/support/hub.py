"""A hub of its own for every suite: free ports, the settings of production, stopped by its process id."""

import json
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

DEADLINE_S = 10
SECRET = "a-secret-for-tests-that-is-long-enough"

_BASE = {
    "APP_ENV": "production",
    "WEBAPP_URL": "https://game.example",
    "WEBSOCKET_TICKET_SECRET": SECRET,
    "WEBSOCKET_PORT": "0",
    "CONTROL_PORT": "0",
    "ADMIN_PORT": "0",
    # Nobody has to be spared a rush of reconnects here, and shutdown is quicker.
    "WEBSOCKET_DRAIN_SECONDS": "0",
    # Players of tests come back more often than people do.
    "WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE": "1000000",
}


def until(condition, what):
    """Asks again until `condition` returns something true, and returns it."""
    ends_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_at:
        if found := condition():
            return found
        time.sleep(0.01)
    raise TimeoutError(f"not within {DEADLINE_S} s: {what}")


class Hub:
    """`with Hub(binary, CONTROL_TOKEN="…") as hub`: serving and ready inside; gone, with status 0, after."""

    def __init__(self, binary, **variables):
        self._lines = []
        self._directory = tempfile.TemporaryDirectory()
        # No variable of the caller's reaches the hub.
        self._process = subprocess.Popen(
            [Path(binary).resolve()], env=_BASE | variables, text=True, cwd=self._directory.name,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        try:
            serving = until(self._serving, "the line that says serving")
            self.edge, self.control, self.admin = (serving[name] for name in ("edge", "control", "admin"))
            until(self._ready, "ready")
        except BaseException:
            self.kill()
            print("\n".join(self._lines))
            raise
        return self

    def __exit__(self, error, *_):
        try:
            status = self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if error is None and status != 0:
            raise AssertionError(f"the hub ended with status {status}:\n" + "\n".join(self._lines[-20:]))

    def ask_to_stop(self):
        self._process.terminate()

    def terminate(self):
        """SIGTERM, as systemd sends it; returns the exit status."""
        self.ask_to_stop()
        return self._process.wait(DEADLINE_S)

    def kill(self):
        """SIGKILL: the hub has no last words."""
        self._process.kill()
        self._process.wait()

    def log(self):
        """The lines so far."""
        return list(self._lines)

    def _read(self):
        for line in self._process.stdout:
            self._lines.append(line.rstrip("\n"))

    def _serving(self):
        if self._process.poll() is not None:
            raise AssertionError(f"the hub ended with status {self._process.returncode}")
        entries = (json.loads(line) for line in self.log() if line.startswith("{"))
        return next((entry for entry in entries if entry["message"] == "serving"), None)

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=DEADLINE_S) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False
