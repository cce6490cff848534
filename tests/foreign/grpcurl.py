#!/usr/bin/env python3
"""The control plane as an operator meets it: a real grpcurl lists, describes and calls everything.

Usage: grpcurl.py <duelhub> <grpcurl>
"""

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import certificates
from support.cases import EPOCH, equal, main
from support.hub import DEADLINE_S, Hub, until

PROTO = Path(__file__).resolve().parents[2] / "proto"
CONTROL = "duelhub/v1/control.proto"
SERVICE = "duelhub.v1.ControlService"
TOKEN = "a-token-of-sixteen-bytes-or-more"
# grpcurl 1.8 ends with 64 and the gRPC code.
CODES = {
    "OK": 0, "InvalidArgument": 67, "DeadlineExceeded": 68, "NotFound": 69, "AlreadyExists": 70,
    "PermissionDenied": 71, "FailedPrecondition": 73, "Unauthenticated": 80,
}

BINARY, GRPCURL = sys.argv[1:3]


class Grpcurl:
    """grpcurl with the options that every command to one hub needs."""

    def __init__(self, address, *options):
        self._address, self._options = address, options

    def run(self, *arguments, options=(), stdin=""):
        return subprocess.run(self.command(*arguments, options=options), input=stdin, capture_output=True, text=True,
                              timeout=DEADLINE_S)

    def command(self, *arguments, options=()):
        return [GRPCURL, *self._options, *options, self._address, *arguments]

    def text(self, *arguments, options=()):
        return _successful(self.run(*arguments, options=options)).stdout

    def call(self, method, request):
        """The one answer to `request`."""
        answers = self.stream(method, json.dumps(request))
        equal(len(answers), 1, "count of answers")
        return answers[0]

    def stream(self, method, stdin):
        """All answers to the messages that are typed in."""
        return _objects(_successful(self.run(_full(method), options=["-d", "@"], stdin=stdin)).stdout)

    def refused(self, method, request, code):
        """What grpcurl says of a call that has to fail with `code`."""
        done = self.run(_full(method), options=["-d", json.dumps(request)])
        equal((done.returncode, f"Code: {code}" in done.stderr), (CODES[code], True), done.stderr)
        return done.stderr


def _full(method):
    return method if "/" in method else f"{SERVICE}/{method}"


def _successful(done):
    if done.returncode != 0:
        raise AssertionError(f"grpcurl ended with status {done.returncode}: {done.stderr}")
    return done


def _objects(text):
    """The JSON objects that stand one after another in `text`."""
    objects, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        found, end = decoder.raw_decode(text)
        objects.append(found)
        text = text[end:]
    return objects


def _position(seq):
    # proto3's JSON leaves zeros out, and writes 64-bit numbers as strings.
    return {"epoch": EPOCH, "seq": str(seq)} if seq else {"epoch": EPOCH}


def _pushed(seq, **more):
    return {"position": _position(seq), **more}


# === Reflection ===

SERVICES = [
    SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]


def reflection(case):
    with Hub(BINARY) as hub:
        grpcurl = Grpcurl(hub.control, "-plaintext")
        with case("grpcurl lists the services"):
            equal(sorted(grpcurl.text("list").split()), sorted(SERVICES), "services")
        for service in SERVICES:
            with case(f"grpcurl describes {service}"):
                equal(f"{service} is a service:" in grpcurl.text("describe", service), True, "described")
        with case("grpcurl lists the calls"):
            wanted = [f"{SERVICE}.{name}" for name in _names("rpc")]
            equal(sorted(grpcurl.text("list", SERVICE).split()), sorted(wanted), "calls")
        _describe_symbols(case, grpcurl)


def _names(keyword):
    """What the manual declares with `keyword`, nested or not."""
    return re.findall(rf"^\s*{keyword} (\w+)", (PROTO / CONTROL).read_text(), re.MULTILINE)


def _describe_symbols(case, grpcurl):
    """What the hub says of itself is what grpcurl reads from the manual, down to the comments."""
    symbols = [SERVICE, *(f"{SERVICE}.{name}" for name in _names("rpc"))]
    symbols += [f"duelhub.v1.{name}" for name in _names("message") + _names("enum")]
    manual = ["-import-path", str(PROTO), "-proto", CONTROL]
    with ThreadPoolExecutor() as pool:
        described = pool.map(lambda symbol: grpcurl.run("describe", symbol, options=["-msg-template"]), symbols)
        written = pool.map(lambda symbol: grpcurl.run("describe", symbol, options=["-msg-template", *manual]), symbols)
        for symbol, ours, theirs in zip(symbols, described, written, strict=True):
            with case(f"grpcurl describes {symbol}"):
                equal(_successful(ours).stdout, _successful(theirs).stdout, "description")


# === Calls ===

PARTICIPANTS = [{"user_id": 1}, {"user_id": 2, "telegram_id": 2002}]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
JTI = re.compile(r"[\w-]{1,64}")
JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
TICKET = {"ticket": JWT, "expiresAt": TIME, "jti": JTI}

# One story from top to bottom; every row is a command an operator may type: call, request, answer.
STORY = [
    ("OpenDuel", {"duel_id": 101, "participants": PARTICIPANTS, "settings": {"presence_grace": "1.5s"}},
     {"position": _position(0), "created": True}),
    ("OpenDuel", {"duel_id": 101, "participants": PARTICIPANTS}, {"position": _position(0)}),
    ("IssueTicket", {"duel_id": 101, "user_id": 1}, TICKET),
    ("IssueTicket", {"duel_id": 101, "user_id": 1, "role": "ROLE_PLAYER", "ttl": "300s"}, TICKET),
    ("IssueTicket", {"duel_id": "101", "user_id": "9", "role": "ROLE_SPECTATOR", "ttl": "86400s"}, TICKET),
    ("RevokeTickets", {"jti": "0123456789abcdef"}, {}),
    ("RevokeTickets", {"user": {"duel_id": 101, "user_id": 1}}, {}),
    ("PushEvent", {"duel_id": 101}, _pushed(1, declared=True)),
    ("PushEvent", {"duel_id": 101, "payload_json": '{"a": 1}', "audience": {"players": True}}, _pushed(2, declared=True)),
    ("PushEvent", {"duel_id": 101, "type": "hint", "audience": {"only": {"user_ids": [1]}}}, _pushed(3, declared=True)),
    ("PushEvent", {"duel_id": 101, "type": "hint", "audience": {"except": {"user_ids": [1, 2]}}}, _pushed(4, declared=True)),
    ("PushEvent", {"duel_id": 101, "payload_json": "{}", "views": [{"user_id": 1, "payload_json": '{"own":true}'}]},
     _pushed(5, declared=True)),
    ("PushEvent", {"duel_id": 101, "type": "score", "coalesce_key": "score"}, _pushed(6, declared=True)),
    ("PushEvent", {"duel_id": 101, "idempotency_key": "k"}, _pushed(7, declared=True)),
    ("PushEvent", {"duel_id": 101, "idempotency_key": "k"}, _pushed(7, declared=True, duplicate=True)),
    ("PushEvent", {"duel_id": 9007199254740991}, _pushed(1)),
    ("Disconnect", {"duel_id": 101}, {}),
    ("Disconnect", {"duel_id": 101, "user_id": 2, "reconnect": True, "reason": "a new server"}, {}),
    ("GetDuel", {"duel_id": 101}, {"duel": {
        "duelId": "101", "status": "DUEL_STATUS_OPEN", "position": _position(7), "oldestSeq": "1", "declared": True,
        "participants": [{"userId": "1", "telegramId": "1"}, {"userId": "2", "telegramId": "2002"}],
        "createdAt": TIME, "updatedAt": TIME}}),
    ("CloseDuel", {"duel_id": 101, "status": "DUEL_STATUS_FINISHED", "last_event": {"payload_json": '{"winner":1}'}},
     _pushed(9)),
    ("CloseDuel", {"duel_id": 101, "status": "DUEL_STATUS_FINISHED"}, _pushed(9, duplicate=True)),
    ("CloseDuel", {"duel_id": 102, "status": "DUEL_STATUS_CANCELLED"}, _pushed(1)),
    ("OpenDuel", {"duel_id": 102, "reopen": True}, {"position": _position(0), "created": True}),
    ("PushEvent", {"duel_id": 102, "idempotency_key": "k"}, _pushed(1, declared=True)),
    ("OpenDuel", {"duel_id": 102, "reopen": True}, {"position": _position(1)}),
    ("CloseDuel", {"duel_id": 102, "status": "DUEL_STATUS_CANCELLED"}, _pushed(2)),
    ("ListDuels", {"page_size": 2}, {"nextPageToken": re.compile(".+"), "duels": [
        {"duelId": "101", "status": "DUEL_STATUS_FINISHED", "position": _position(9)},
        {"duelId": "102", "status": "DUEL_STATUS_CANCELLED", "position": _position(2)}]}),
    ("ListDuels", {"status": "DUEL_STATUS_OPEN"}, {"duels": [
        {"duelId": "9007199254740991", "status": "DUEL_STATUS_OPEN", "position": _position(1)}]}),
]

# What cannot be done once the story is told: call, request, code, a word of the message.
REFUSALS = [
    ("OpenDuel", {"duel_id": 101}, "FailedPrecondition", "closed"),
    ("IssueTicket", {"duel_id": 101, "user_id": 1}, "FailedPrecondition", "closed"),
    ("PushEvent", {"duel_id": 101}, "FailedPrecondition", "closed"),
    ("CloseDuel", {"duel_id": 101, "status": "DUEL_STATUS_CANCELLED"}, "FailedPrecondition", "closed"),
    ("GetDuel", {"duel_id": 103}, "NotFound", "duel"),
    ("OpenDuel", {"duel_id": 0}, "InvalidArgument", "duel_id"),
    ("IssueTicket", {"duel_id": 1}, "InvalidArgument", "user_id"),
    ("RevokeTickets", {}, "InvalidArgument", "tickets"),
    ("PushEvent", {"duel_id": 1, "payload_json": "[]"}, "InvalidArgument", "payload_json"),
    ("CloseDuel", {"duel_id": 1}, "InvalidArgument", "status"),
    ("ListDuels", {"page_size": 1001}, "InvalidArgument", "page_size"),
    ("Disconnect", {"duel_id": 1, "reason": "x" * 121}, "InvalidArgument", "reason"),
    ("WatchDuels", {"duel_ids": [0]}, "InvalidArgument", "duel_ids"),
    ("grpc.health.v1.Health/Check", {"service": "no.such.Service"}, "NotFound", ""),
]


def calls(case):
    with Hub(BINARY) as hub:
        grpcurl = Grpcurl(hub.control, "-plaintext")
        for method, request, wanted in STORY:
            with case(f"grpcurl {method} {request}"):
                equal(grpcurl.call(method, request), wanted, "answer")
        for method, request, code, word in REFUSALS:
            with case(f"grpcurl {method} {request} is refused"):
                equal(word in grpcurl.refused(method, request, code), True, f"names {word}")
        _health(case, grpcurl)
        _next_page(case, grpcurl)
        _key_reused(case, grpcurl)
        _declared_duel(case, grpcurl)
        _node(case, grpcurl)
        _request_id(case, grpcurl)
        _push_events(case, grpcurl)


def _health(case, grpcurl):
    for request in ({}, {"service": SERVICE}):
        with case(f"grpcurl grpc.health.v1.Health/Check {request}"):
            # It may lag behind /readyz.
            until(lambda: grpcurl.call("grpc.health.v1.Health/Check", request) == {"status": "SERVING"}, "SERVING")


def _next_page(case, grpcurl):
    with case("grpcurl turns the page of ListDuels"):
        token = grpcurl.call("ListDuels", {"page_size": 2})["nextPageToken"]
        rest = grpcurl.call("ListDuels", {"page_size": 2, "page_token": token})
        equal(rest.get("nextPageToken"), None, "token after the last page")
        equal([duel["duelId"] for duel in rest["duels"]], ["9007199254740991"], "last page")


def _key_reused(case, grpcurl):
    with case("grpcurl PushEvent with a used key and another content"):
        first = {"duel_id": 104, "idempotency_key": "k"}
        grpcurl.call("PushEvent", first)
        grpcurl.refused("PushEvent", first | {"payload_json": '{"other":1}'}, "AlreadyExists")


def _declared_duel(case, grpcurl):
    with case("grpcurl IssueTicket for a stranger in a declared duel"):
        grpcurl.call("OpenDuel", {"duel_id": 105, "participants": PARTICIPANTS})
        grpcurl.refused("IssueTicket", {"duel_id": 105, "user_id": 3}, "PermissionDenied")


def _node(case, grpcurl):
    with case("grpcurl GetNode"):
        node = grpcurl.call("GetNode", {})
        limits = node.pop("limits")
        duels = grpcurl.call("ListDuels", {"page_size": 1000})["duels"]
        equal(node, {
            "version": re.compile(r"\d+\.\d+\.\d+"), "startedAt": TIME, "uptime": re.compile(r"\d+(\.\d+)?s"),
            "engine": "embedded", "ready": True, "counts": {"duels": str(len(duels))},
        }, "node")
        equal({"name": "CONTROL_MAX_PAYLOAD_BYTES", "value": "65536"} in limits, True, "limit")


def _request_id(case, grpcurl):
    with case("grpcurl -v shows the request id that it sent"):
        shown = grpcurl.text(_full("GetNode"), options=["-v", "-H", "x-request-id: by-hand-1"])
        equal("x-request-id: by-hand-1" in shown, True, "header")


def _push_events(case, grpcurl):
    with case("grpcurl PushEvents with messages from standard input"):
        typed = """
            {"tag": 7, "push": {"duel_id": 106, "payload_json": "{}"}}
            {"tag": 8, "push": {"duel_id": 106, "audience": {"players": true}}}
            {"tag": 9, "push": {"duel_id": 106, "type": "Not A Type"}}
            {"tag": 10, "push": {"duel_id": 106, "idempotency_key": "k"}}
            {"tag": 11, "push": {"duel_id": 106, "idempotency_key": "k"}}
        """
        error = {"code": 3, "reason": "INVALID_FIELD", "message": re.compile(".*type.*"), "field": "type"}
        equal(grpcurl.stream("PushEvents", typed), [
            {"tag": "7", "pushed": _pushed(1)}, {"tag": "8", "pushed": _pushed(2)}, {"tag": "9", "error": error},
            {"tag": "10", "pushed": _pushed(3)}, {"tag": "11", "pushed": _pushed(3, duplicate=True)},
        ], "answers")


# === WatchDuels ===


def watch(case):
    with Hub(BINARY) as hub:
        grpcurl = Grpcurl(hub.control, "-plaintext")
        grpcurl.call("PushEvent", {"duel_id": 201})
        grpcurl.call("CloseDuel", {"duel_id": 202, "status": "DUEL_STATUS_CANCELLED"})
        command = grpcurl.command(_full("WatchDuels"), options=["-max-time", "3", "-d", "{}"])
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watcher:
            _watch(case, grpcurl, watcher)


def _watch(case, grpcurl, watcher):
    with case("grpcurl WatchDuels tells the state, then that it is complete"):
        state = [_object(watcher.stdout) for _ in range(4)]
        closed = {"status": "DUEL_STATUS_CANCELLED", "position": _position(1)}
        equal(state[:3], [
            {"duelId": "201", "initial": True, "opened": {"position": _position(1)}},
            {"duelId": "202", "initial": True, "opened": {"position": _position(1)}},
            {"duelId": "202", "initial": True, "closed": closed},
        ], "state")
        equal(state[3]["synced"], {"duels": "2"}, "synced")
    with case("grpcurl WatchDuels tells what changes"):
        grpcurl.call("OpenDuel", {"duel_id": 203})
        equal(_object(watcher.stdout), {"duelId": "203", "opened": {"position": _position(0)}}, "change")
    with case("grpcurl WatchDuels ends when its time is up"):
        _, complaint = watcher.communicate(timeout=DEADLINE_S)
        equal((watcher.returncode, "DeadlineExceeded" in complaint), (CODES["DeadlineExceeded"], True), complaint)


def _object(lines):
    """The next JSON object of a command that is still running; -max-time bounds the wait."""
    text = ""
    for line in lines:
        text += line
        if line == "}\n":
            return json.loads(text)
    raise AssertionError(f"the stream ended: {text!r}")


# === Authentication ===

# Every way in, as the arguments of a command.
DOORS = [
    ("reflection lists", ["list"]),
    ("reflection describes", ["describe", SERVICE]),
    ("a call", [_full("GetNode")]),
    ("a stream", [_full("WatchDuels")]),
    ("health", ["grpc.health.v1.Health/Check"]),
]
RIGHT = f"authorization: Bearer {TOKEN}"
WRONG = [[], ["-H", "authorization: Bearer "], ["-H", f"authorization: Bearer {TOKEN}x"],
         ["-H", f"authorization: Bearer {TOKEN[:-1]}"], ["-H", f"authorization: {TOKEN}"]]


def bearer_token(case):
    with Hub(BINARY, CONTROL_TOKEN=TOKEN) as hub:
        grpcurl = Grpcurl(hub.control, "-plaintext", "-max-time", "1")
        for name, arguments in DOORS:
            with case(f"token: {name} with the right one"):
                done = grpcurl.run(*arguments, options=["-H", RIGHT])
                # A watch goes on until its time is up.
                equal(done.returncode, CODES["DeadlineExceeded" if name == "a stream" else "OK"], done.stderr)
            for options in WRONG:
                with case(f"token: {name} with {options}"):
                    _unauthenticated(grpcurl, arguments, options)


def _unauthenticated(grpcurl, arguments, options):
    is_call = "/" in arguments[0]
    if is_call:
        # grpcurl asks reflection before it calls; were that refused, the call would not be tried at all.
        options = ["-reflect-header", RIGHT, *("-rpc-header" if option == "-H" else option for option in options)]
    done = grpcurl.run(*arguments, options=options)
    status = CODES["Unauthenticated"] if is_call else 1
    equal((done.returncode, "Unauthenticated" in done.stderr), (status, True), done.stderr)


def mutual_tls(case):
    with tempfile.TemporaryDirectory(prefix="duelhub-certificates-") as folder:
        folder = Path(folder)
        certificates.make(folder)
        variables = {"CONTROL_TLS_CERT": str(folder / "hub.pem"), "CONTROL_TLS_KEY": str(folder / "hub.key")}
        with Hub(BINARY, **variables) as hub:
            with case("TLS: a caller without a certificate"):
                equal(_caller(hub, folder).call("ListDuels", {}), {}, "answer")
            with case("TLS: a caller who takes the hub for another's"):
                _kept_out(_caller(hub, folder, authority="other_authority"))
        with Hub(BINARY, **variables, CONTROL_TLS_CLIENT_CA=str(folder / "authority.pem")) as hub:
            _certificates(case, hub, folder)
        with Hub(BINARY, **variables, CONTROL_TLS_CLIENT_CA=str(folder / "authority.pem"), CONTROL_TOKEN=TOKEN) as hub:
            _certificate_and_token(case, hub, folder)


def _caller(hub, folder, name=None, authority="authority"):
    own = ["-cert", folder / f"{name}.pem", "-key", folder / f"{name}.key"] if name else []
    return Grpcurl(hub.control, "-connect-timeout", "3", "-cacert", folder / f"{authority}.pem", *own)


def _certificates(case, hub, folder):
    backend = _caller(hub, folder, "backend")
    for name, arguments in DOORS:
        with case(f"mutual TLS: {name} with a certificate"):
            done = backend.run(*arguments, options=["-max-time", "1"])
            equal(done.returncode, CODES["DeadlineExceeded" if name == "a stream" else "OK"], done.stderr)
    outsiders = {
        "without a certificate": _caller(hub, folder),
        "with another authority's certificate": _caller(hub, folder, "stranger"),
        "without TLS": Grpcurl(hub.control, "-plaintext", "-connect-timeout", "3"),
    }
    for name, outsider in outsiders.items():
        with case(f"mutual TLS: {name}"):
            _kept_out(outsider)


def _kept_out(outsider):
    """The connection itself fails, before there is a call that a status could belong to."""
    done = outsider.run("list")
    equal((done.returncode, done.stdout), (1, ""), done.stderr)
    equal("Unauthenticated" in done.stderr, False, "answered by the hub")


def _certificate_and_token(case, hub, folder):
    backend = _caller(hub, folder, "backend")
    with case("mutual TLS and token: both"):
        _successful(backend.run(_full("GetNode"), options=["-H", RIGHT]))
    with case("mutual TLS and token: a certificate alone"):
        _unauthenticated(backend, [_full("GetNode")], [])


if __name__ == "__main__":
    sys.exit(main([reflection, calls, watch, bearer_token, mutual_tls]))
