"""deploy/kubernetes*.yaml: valid by Kubernetes' own schemas, and a hub that runs with what is in there.

    unshare --net manifests.py BINARY

There is no cluster here. The hub gets the container's environment, and ports of a network namespace of its own. The probes, the sidecar
and the stop are tried on it as the kubelet would.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import kubernetes_validate
import yaml

from lib import DEPLOY
from lib.machines import Daemon, Redis
from support.cases import Cases, equal

# The oldest that the manifests name, and the newest that the schemas are there for.
VERSIONS = ("1.29", "1.37")
# An address of the pod's that is not loopback.
POD = "10.1.2.3"
SECRET = {
    "WEBSOCKET_TICKET_SECRET": "a-secret-for-tests-that-is-long-enough",
    "CONTROL_TOKEN": "a-token-of-sixteen-bytes-or-more",
    "TELEGRAM_BOT_TOKEN": "123456:a-bot-token-for-tests",
}
DEADLINE_S = 30


def image_environment():
    [block] = re.findall(r"^ENV ((?:.*\\\n)*.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


class Pod:
    """The pod of a manifest, its hub on this machine."""

    def __init__(self, documents):
        by_kind = {document["kind"]: document for document in documents}
        self.spec = by_kind.get("StatefulSet", by_kind.get("Deployment"))["spec"]["template"]["spec"]
        self.hub, self.metrics = self.spec["containers"]
        self.nginx_conf = by_kind["ConfigMap"]["data"]["nginx.conf"]
        self.service = by_kind["Service"]["spec"]

    def environment(self):
        equal(self.hub["envFrom"], [{"secretRef": {"name": "duelhub"}}], "envFrom")
        return image_environment() | {entry["name"]: entry["value"] for entry in self.hub["env"]} | SECRET

    def probe(self, name):
        return subprocess.run(self.hub[name]["exec"]["command"], stderr=subprocess.DEVNULL).returncode == 0


def within(condition, what):
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.1)


def status_of(url, body=None, **headers):
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, ""
    except OSError:
        return None, ""


def get_node(token):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    return status_of(f"http://{POD}:50051/duelhub.v1.ControlService/GetNode", b"{}", **headers)


def is_confined(pod):
    equal((pod.spec["securityContext"]["runAsNonRoot"], pod.spec["automountServiceAccountToken"],
           pod.spec["enableServiceLinks"]), (True, False, False), "the pod")
    for container in (pod.hub, pod.metrics):
        equal(container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                             "capabilities": {"drop": ["ALL"]}}, container["name"])
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["memory"]


def ports_are_named(pod):
    names = {port["name"]: port["containerPort"] for container in (pod.hub, pod.metrics) for port in container["ports"]}
    equal({port["targetPort"]: port["port"] for port in pod.service["ports"]}, names, "ports of the Service")


def runs(case, name, pod, binary, folder, stack):
    variables = pod.environment() | {"DATA_DIR": str(folder / "data")}
    if variables.get("ENGINE") == "redis":
        redis = Redis(folder)
        stack.callback(redis.kill)
        variables["REDIS_URL"] = redis.url
    log = folder / "hub.log"
    hub = subprocess.Popen([binary], env=variables, cwd=folder, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    stack.callback(hub.kill)
    with case(f"{name}: the hub starts, and the probes say so"):
        try:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                within(lambda: pod.probe(probe), probe)
        except AssertionError:
            print(log.read_text())
            raise
    with case(f"{name}: it says nothing of its configuration but that the token has no TLS"):
        warnings = [line["message"] for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "WARN"]
        unexpected = [text for text in warnings if "CONTROL_TLS" not in text and "LimitNOFILE" not in text]
        assert not unexpected, unexpected
    with case(f"{name}: the backend's port wants the token, the players' answers, the admin port is not there"):
        equal([get_node(token)[0] for token in (SECRET["CONTROL_TOKEN"], "another")], [200, 401], "GetNode")
        equal(status_of(f"http://{POD}:8090/ws")[0], 426, "/ws")
        equal(status_of(f"http://{POD}:8091/metrics")[0], None, "the admin port")
    sidecar(case, name, pod, folder, stack)
    with case(f"{name}: it stops within its grace period, in good order"):
        hub.terminate()
        pre_stop = 5 if "lifecycle" in pod.hub else 0
        equal(hub.wait(pod.spec["terminationGracePeriodSeconds"] - pre_stop), 0, "exit status")
        equal((pod.probe("livenessProbe"), pod.probe("readinessProbe")), (False, False), "probes")


def sidecar(case, name, pod, folder, stack):
    with case(f"{name}: the sidecar passes on the metrics and nothing else"):
        conf = folder / "nginx.conf"
        conf.write_text(pod.nginx_conf.replace("/tmp/", f"{folder}/"))
        command = ["-c" if part == "-c" else str(conf) if part.endswith("nginx.conf") else part
                   for part in pod.metrics["command"]]
        nginx = Daemon(*command)
        # Its workers end with it, when it is told to stop.
        stack.callback(subprocess.run, ["nginx", "-c", conf, "-s", "stop"], stderr=subprocess.DEVNULL)
        within(lambda: "\nduelhub_ready 1\n" in status_of(f"http://{POD}:9091/metrics")[1], "metrics")
        equal(status_of(f"http://{POD}:9091/readyz")[0], 404, "/readyz")
        assert nginx


def main(binary):
    # The namespace is new: it has no interface that is up.
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{POD}/32", "dev", "lo"], check=True)
    cases = Cases()
    for path in sorted(DEPLOY.glob("kubernetes*.yaml")):
        documents = list(yaml.safe_load_all(path.read_text()))
        for document in documents:
            for version in VERSIONS:
                with cases.case(f"{path.name}: {document['kind']} by the schema of {version}"):
                    kubernetes_validate.validate(document, version, strict=True)
        pod = Pod(documents)
        with cases.case(f"{path.name}: it is confined"):
            is_confined(pod)
        with cases.case(f"{path.name}: ports"):
            ports_are_named(pod)
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="duelhub-manifests-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            runs(cases.case, path.name, pod, os.path.abspath(binary), folder, stack)
    print(f"{cases.passed} passed, {cases.failed} failed", flush=True)
    return 1 if cases.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
