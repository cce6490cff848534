"""The examples against a hub: each as examples/README.md says, with a wrong token, and over a network that fails.

Usage: stories.py <duelhub>
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/foreign"))

from relay import Relay  # noqa: E402
from support.cases import equal, main  # noqa: E402
from support.hub import Hub  # noqa: E402

BINARY = sys.argv[1]
TOKEN = "a-token-of-the-examples"
README = (ROOT / "examples/README.md").read_text()
# The packages of `npm install` and `pip install` come from tests/tools/install.
INSTALLED = [
    (r"^npm install( && )?", ""),
    (r"^python3 -m venv .*", ""),
    (r"\.venv/bin/python\b", str(ROOT / "tests/tools/venv/bin/python")),
    (r"npx --yes @bufbuild/buf@\S+", str(ROOT / "tests/tools/node_modules/.bin/buf")),
]
# A build of Go's takes longest, on a machine that has never built it.
DEADLINE_S = 180

TICKET = r"[\w-]+\.[\w-]+\.[\w-]+"
DUELS = count(1001)


def story(first_is_duplicate, refusal):
    """What the examples of gRPC and Connect print."""
    return [
        r"duel \d+ is open, created just now: true",
        f"ticket of user 1001: {TICKET}",
        f"event 1 is stored, a duplicate: {first_is_duplicate}",
        "event 1 is stored, a duplicate: true",
        "watched: opened",
        "watched: synced",
        "watched: closed",
        *refusal,
    ]


def answers(first_is_duplicate, _):
    """What curl's prints: the hub's own words."""
    return [
        r'\{"position":.*"created":true\}',
        rf'\{{"ticket":"{TICKET}",.*\}}',
        rf'\{{"position":.*"seq":"1"\}},"duplicate":{first_is_duplicate},.*\}}',
        r'\{"position":.*"seq":"1"\},"duplicate":true,.*\}',
        r'\{"duelId":"\d+","initial":true,"opened":.*\}',
        r'\{"duelId":"0","initial":true,"synced":.*\}',
        r'\{"position":.*"seq":"2"\},"duplicate":false,.*\}',
        r'\{"duelId":"\d+","initial":false,"closed":\{"status":"DUEL_STATUS_FINISHED",.*\}\}',
        r'\{"code":"failed_precondition",.*"reason":"DUEL_CLOSED".*\}',
        "refused",
    ]


# By the last line of its block in the README: what it prints, and how it says that it is refused.
EXAMPLES = {
    "examples/curl/duel.sh": (answers, []),
    "node grpc.mjs": (story, ["refused: FAILED_PRECONDITION, the duel is closed"]),
    "node build/connect.js": (story, ["refused: FailedPrecondition, the duel is closed", 'why: .*"DUEL_CLOSED".*']),
    ".venv/bin/python duel.py": (story, ["refused: FAILED_PRECONDITION, the duel is closed"]),
    "go run .": (story, ["refused: FailedPrecondition, the duel is closed", "why: DUEL_CLOSED .*"]),
}


def blocks():
    """The lines of each block of the README, by the last of them."""
    found = [block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)]
    return {lines[-1]: lines for lines in found}


def as_installed(line):
    for pattern, stand_in in INSTALLED:
        line = re.sub(pattern, stand_in, line)
    return line


def run(lines, variables):
    """The status and the output of these lines in a shell, from the top of the clone."""
    script = "\n".join(as_installed(line) for line in lines)
    # A session of its own, so that all that it started can be ended with it.
    shell = subprocess.Popen(["bash", "-euc", script], cwd=ROOT, env=os.environ | variables, text=True,
                             start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    try:
        said, complained = shell.communicate(timeout=DEADLINE_S)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    return shell.returncode, said, complained


class Place:
    """A hub that can be killed and started again on its store."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory()
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hub.terminate()

    def _start(self):
        self.hub = Hub(BINARY, CONTROL_TOKEN=TOKEN, DATA_DIR=self._directory.name)
        self.hub.__enter__()

    def restart(self):
        self.hub.kill()
        self._start()

    def duel(self, duel):
        """What the hub has of it, in JSON."""
        url = f"http://{self.hub.control}/duelhub.v1.ControlService/GetDuel"
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(url, json.dumps({"duelId": duel}).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["duel"]


def tell(place, lines, wanted, address):
    """Runs an example, and sees that it prints what is wanted, and that its duel has the event and its end, once each."""
    duel = next(DUELS)
    status, said, complained = run([*lines[:-1], f"{lines[-1]} {duel}"], {"CONTROL": address, "CONTROL_TOKEN": TOKEN})
    everything = said + complained
    equal(status, 0, everything)
    pattern = re.compile("\n".join(wanted) + "\n", re.IGNORECASE)
    if not pattern.fullmatch(said):
        raise AssertionError(f"printed\n{everything}\nwanted\n{pattern.pattern}")
    kept = place.duel(duel)
    equal((kept["position"]["seq"], kept["status"]), ("2", "DUEL_STATUS_FINISHED"), "the duel")


def over_failing_network(place, lines, wanted, at_loss):
    relay = Relay(lambda: place.hub.control, b"question-1", at_loss)
    try:
        tell(place, lines, wanted, relay.address)
    finally:
        relay.close()
    equal((relay.refused, relay.lost), (1, 1), "connections refused, answers lost")


def example(case, place, command, lines):
    prints, refusal = EXAMPLES[command]
    with case(f"{command}: the lines before it"):
        status, said, complained = run(lines[:-1], {})
        equal(status, 0, said + complained)
    lines = [line for line in lines if line.startswith("cd ") or line == command]
    with case(f"{command}: the story"):
        tell(place, lines, prints("false", refusal), place.hub.control)
    with case(f"{command}: a wrong token"):
        status, said, complained = run(lines, {"CONTROL": place.hub.control, "CONTROL_TOKEN": "wrong"})
        everything = said + complained
        equal((status != 0, "unauthenticated" in everything.lower()), (True, True), everything)
    with case(f"{command}: a reset connection, a lost answer"):
        over_failing_network(place, lines, prints("true", refusal), lambda: None)
    with case(f"{command}: a reset connection, the hub is killed with an answer under way"):
        over_failing_network(place, lines, prints("true", refusal), place.restart)


def go_is_there():
    if shutil.which("go") is None:
        return False
    # Fails where Go is older than go.mod asks for, and may not fetch another.
    return subprocess.run(["go", "list", "-m"], cwd=ROOT / "examples/go", capture_output=True).returncode == 0


def examples(case):
    found = blocks()
    with case("every block of the README is an example"):
        equal(set(found), set(EXAMPLES), "last lines")
    with case("the tests run the versions that the examples name"):
        tools = (ROOT / "tests/tools/requirements.txt").read_text().splitlines()
        equal(set((ROOT / "examples/python/requirements.txt").read_text().splitlines()) - set(tools), set(), "PyPI")
        buf = json.loads((ROOT / "tests/tools/package.json").read_text())["dependencies"]["@bufbuild/buf"]
        equal(re.search(r"@bufbuild/buf@(\S+)", README)[1], buf, "buf")
    with Place() as place:
        for command, lines in found.items():
            if command.startswith("go ") and not go_is_there():
                print("NOT TESTED: examples/go (there is no go, or none that is new enough)", flush=True)
                continue
            example(case, place, command, lines)


if __name__ == "__main__":
    sys.exit(main([examples]))
