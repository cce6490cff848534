"""deploy/prometheus and deploy/grafana in a real Prometheus: each alert fires at its fault and at no other, and every query of the
dashboard answers.

    monitoring.py BINARY [FAULT...]

A hub for each fault of lib/faults.py, all at the same time. Durations are a fifteenth of those in the files (lib/server.py).
Needs root, for a disk of its own that becomes full.
"""

import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lib import DEPLOY
from lib.faults import FAULTS, play
from lib.machines import Daemon, Loops, Machine, Redis, background, free_port
from lib.server import Prometheus
from support.cases import Cases
from support.player import Closed

# How long the slowest alert may take: 20 s of samples, 20 s of `for`, 10 s until a client is too slow; and a busy machine.
ALERTS_WITHIN_S = 120
ENDS_WITHIN_S = 60


class World:
    """The processes of the test, and what has to live as long as they do."""

    def __init__(self, binary, folder, stack):
        self._binary, self._folder, self._stack = binary, folder, stack
        self._kept = []
        self.disk = stack.enter_context(small_disk(folder))
        self.loops = Loops()
        stack.callback(self.loops.end)

    def hub(self, name, folder=None, **variables):
        return self._run(Machine(self._binary, folder or self._folder / name, **variables))

    def redis(self, name):
        folder = self._folder / f"{name}-redis"
        folder.mkdir()
        return self._run(Redis(folder))

    def _run(self, process):
        self._stack.callback(process.kill)
        return process

    def keep(self, thing):
        self._kept.append(thing)

    def keep_reading(self, player):
        self.keep(player)
        # It waits for as long as nothing comes.
        player._socket.settimeout(None)

        def read():
            try:
                while True:
                    player.text()
            except (Closed, OSError, ValueError):
                pass
        background(read)


@contextmanager
def mounted(mountpoint, *what):
    mountpoint.mkdir(exist_ok=True)
    subprocess.run(["mount", *what, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        # Lazily: what was killed a moment ago may still have files open.
        subprocess.run(["umount", "--lazy", mountpoint], check=True)


@contextmanager
def workplace():
    """A folder in memory: no push waits for a disk that others keep busy."""
    folder = Path(tempfile.mkdtemp(prefix="duelhub-operators-"))
    try:
        with mounted(folder, "-t", "tmpfs", "-o", "size=1g", "tmpfs"):
            yield folder
    finally:
        folder.rmdir()


@contextmanager
def small_disk(folder):
    """2 GiB, of which only what is written takes memory."""
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    with mounted(folder / "disk", "-o", "loop", image) as mountpoint:
        yield mountpoint


def within(seconds, condition):
    """Asks until `condition` holds; returns what it said last."""
    ends_at = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < ends_at:
        time.sleep(0.25)
    return answer


def dashboard_queries():
    dashboard = json.loads((DEPLOY / "grafana" / "duelhub.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    [instances] = [variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    yield "variable", re.fullmatch(r"label_values\((.*), instance\)", instances)[1]


def has_data(prometheus, expr):
    """`$__rate_interval` is four scrapes or more, which are 1 s apart here."""
    expr = expr.replace("$__rate_interval", "20s").replace("$instance", ".*")
    return any(not math.isnan(float(found["value"][1])) for found in prometheus.query(expr))


def expected(faults):
    must = {(alert, name) for name, fault in faults.items() for alert in fault.fires}
    if "full-disk" in faults:
        must.add(("DuelhubDiskNearlyFull", "node"))
    return must, must | {(alert, name) for name, fault in faults.items() for alert in fault.may_fire}


def explain(title, alerts):
    return "".join(f"\n  {title}: {alert} of {instance}" for alert, instance in sorted(alerts))


def watch(case, prometheus, faults, hubs):
    must, may = expected(faults)
    with case("nothing fires while all is well, and everything is scraped"):
        up = f'count(up{{job="duelhub"}} == 1) == {len(hubs)}'
        assert within(30, lambda: prometheus.query(up)), prometheus.query("up")
        prometheus.load_rules()
        # Five evaluations of the rules, with data.
        evaluated = "count_over_time(duelhub:connections_max[1m]) >= 5"
        assert within(30, lambda: prometheus.query(evaluated)), "the rules are not evaluated"
        assert not prometheus.fired(), prometheus.fired()

    struck_at = time.monotonic()
    for name, fault in faults.items():
        fault.strike(hubs[name])
    with case("each alert fires at its fault"):
        within(ALERTS_WITHIN_S, lambda: must <= prometheus.fired())
        print(f"  all within {time.monotonic() - struck_at:.0f} s", flush=True)
        assert must <= prometheus.fired(), explain("missing", must - prometheus.fired())
    for title, expr in dashboard_queries():
        with case(f"the dashboard's {title} has data: {expr}"):
            assert has_data(prometheus, expr)
    with case("an alert ends with its fault"):
        ended = {(alert, name) for name, fault in faults.items() for alert in fault.mend(hubs[name])}
        ended.add(("DuelhubDiskNearlyFull", "node"))
        within(ENDS_WITHIN_S, lambda: not ended & prometheus.firing())
        assert not ended & prometheus.firing(), explain("still firing", ended & prometheus.firing())
    with case("no alert fires that should not"):
        assert prometheus.fired() <= may, explain("fired", prometheus.fired() - may)


def main(binary, names):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cases = Cases()
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        world = World(binary, folder, stack)
        faults = {name: FAULTS[name](world) for name in names or FAULTS}
        hubs = {name: fault.prepare() for name, fault in faults.items()}
        for name, hub in hubs.items():
            if faults[name].plays:
                play(world, hub)
        exporter = f"127.0.0.1:{free_port()}"
        processes = [
            Daemon("prometheus-node-exporter", "--collector.disable-defaults", "--collector.filesystem",
                   f"--web.listen-address={exporter}"),
            Prometheus(folder, world.disk, hubs, exporter),
        ]
        for process in processes:
            stack.callback(process.kill)
        watch(cases.case, processes[-1], faults, hubs)
    print(f"{cases.passed} passed, {cases.failed} failed", flush=True)
    return 1 if cases.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
