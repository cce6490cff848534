"""A real Prometheus with the files of deploy/prometheus, in fast motion."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
from urllib.parse import urlencode

import yaml

from . import DEPLOY
from .machines import Daemon, free_port

# Every duration of the files is divided by this: 15 s between two scrapes are 1 s, `for: 5m` is 20 s.
FASTER = 15

# Limits in the rules, and what they are here: the hubs of the tests have few players.
LIMITS = {"100000": "100", "200000": "2000", "2000000": "1000"}


def _faster(match):
    seconds = int(match[2]) * {"s": 1, "m": 60}[match[3]]
    return f"{match[1]}{seconds // FASTER}s"


def rules_in_fast_motion(mountpoint):
    text = (DEPLOY / "prometheus" / "duelhub.rules.yml").read_text()
    text = re.sub(r"(\[|for: )(\d+)([sm])\b", _faster, text)
    text = re.sub(r"\b(?:100000|200000|2000000)\b", lambda match: LIMITS[match[0]], text)
    return text.replace("/|/var|/var/lib|/var/lib/duelhub", mountpoint)


def _config(rules, hubs, exporter):
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    del config["alerting"]
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules)]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    target = lambda name, address: {"targets": [address], "labels": {"instance": name}}
    jobs["duelhub"]["static_configs"] = [target(name, hub.admin) for name, hub in hubs.items()]
    jobs["node"]["static_configs"] = [target("node", exporter)]
    return yaml.safe_dump(config)


class Prometheus(Daemon):
    """It scrapes, and has no rules before `load_rules`."""

    def __init__(self, folder, mountpoint, hubs, exporter):
        self._rules, config = folder / "duelhub.rules.yml", folder / "prometheus.yml"
        self._mountpoint = str(mountpoint)
        self._rules.write_text("groups: []\n")
        config.write_text(_config(self._rules, hubs, exporter))
        self._address = f"127.0.0.1:{free_port()}"
        self._started_at = time.monotonic()
        super().__init__("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                         f"--web.listen-address={self._address}")

    def load_rules(self):
        """To be called once the hubs are scraped. That takes Prometheus 5 s, in which `absent` is true: no time in its own
        pace, and longer than the alert waits here."""
        self._rules.write_text(rules_in_fast_motion(self._mountpoint))
        self.signal(signal.SIGHUP)

    def query(self, query):
        """The samples of an instant query; none while Prometheus is not there yet."""
        url = f"http://{self._address}/api/v1/query?" + urlencode({"query": query})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{query}\n  {refused.read().decode()}") from refused
        except OSError:
            return []

    def fired(self):
        """Every (alert, instance) that has fired since the start."""
        since = int(time.monotonic() - self._started_at) + 1
        return self._alerts(f'max_over_time(ALERTS{{alertstate="firing"}}[{since}s])')

    def firing(self):
        return self._alerts('ALERTS{alertstate="firing"}')

    def _alerts(self, query):
        return {(found["metric"]["alertname"], found["metric"].get("instance", "")) for found in self.query(query)}
