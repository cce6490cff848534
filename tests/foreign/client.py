#!/usr/bin/env python3
"""The control plane as a backend meets it: grpcio with stubs generated from the proto, and players who are connected.

Usage: client.py <duelhub>
"""

import base64
import json
import queue
import re
import sys
import time
from contextlib import contextmanager

import grpc
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

import refusals
from support.backend import NARROW, SERVICE, Backend, bearer, failure_of, shown
from support.cases import EPOCH, equal, main
from support.hub import DEADLINE_S, Hub, until
from support.player import Player
from support.stubs import pb

BINARY = sys.argv[1]
TOKEN = "a-token-of-sixteen-bytes-or-more"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@contextmanager
def served(**variables):
    """A hub of its own, and a backend on it."""
    with Hub(BINARY, **variables) as hub, Backend(hub.control) as backend:
        yield hub, backend


def position(seq):
    return {"epoch": EPOCH, "seq": str(seq)} if seq else {"epoch": EPOCH}


def pushed(seq, **more):
    return {"position": position(seq), **more}


def enter(hub, backend, duel, user, role=pb.ROLE_PLAYER):
    """A player who is in the duel."""
    ticket = backend.call("IssueTicket", duel_id=duel, user_id=user, role=role).ticket
    player = Player(hub.edge, ticket)
    player.next("connected")
    return player


# === Duels ===


def duels(case):
    with served() as (_, backend):
        _declaring(case, backend)
        _closing(case, backend)
        _showing(case, backend)
        _listing(case, backend)


def _participants(backend, duel):
    found = backend.call("GetDuel", duel_id=duel).duel.participants
    return [(person.user_id, person.telegram_id) for person in found]


def _declaring(case, backend):
    # Participants given, whether the duel is new, participants after.
    steps = [
        ([{"user_id": 1}, {"user_id": 2, "telegram_id": 22}], True, [(1, 1), (2, 22)]),
        ([{"user_id": 1}, {"user_id": 2, "telegram_id": 22}], False, [(1, 1), (2, 22)]),
        ([{"user_id": 3}], False, [(1, 1), (2, 22), (3, 3)]),
        ([{"user_id": 1, "telegram_id": 11}], False, [(1, 11), (2, 22), (3, 3)]),
        ([{"user_id": 1, "telegram_id": 22}, {"user_id": 2, "telegram_id": 11}], False, [(1, 22), (2, 11), (3, 3)]),
        ([], False, [(1, 22), (2, 11), (3, 3)]),
    ]
    for given, created, after in steps:
        with case(f"OpenDuel with {given}"):
            answer = backend.call("OpenDuel", duel_id=1, participants=given)
            equal((shown(answer.position), answer.created), (position(0), created), "answer")
            equal(sorted(_participants(backend, 1)), after, "participants")
    with case("OpenDuel declares a duel that a push brought into being"):
        backend.call("PushEvent", duel_id=2)
        equal(backend.call("GetDuel", duel_id=2).duel.declared, False, "declared before")
        equal(shown(backend.call("OpenDuel", duel_id=2)), pushed(1), "answer")
        equal(backend.call("GetDuel", duel_id=2).duel.declared, True, "declared after")


def _closing(case, backend):
    close = {"duel_id": 3, "status": pb.DUEL_STATUS_FINISHED, "last_event": {"payload_json": '{"winner":1}'}}
    # The duel is brought into being by its end: one event for the last event, one for the end.
    steps = [
        (close, pushed(2)),
        (close, pushed(2, duplicate=True)),
        ({"duel_id": 3, "status": pb.DUEL_STATUS_FINISHED}, pushed(2, duplicate=True)),
        ({"duel_id": 4, "status": pb.DUEL_STATUS_CANCELLED}, pushed(1)),
    ]
    for request, answer in steps:
        with case(f"CloseDuel {request}"):
            equal(shown(backend.call("CloseDuel", **request)), answer, "answer")
    with case("a push that was stored before the end is still answered after it"):
        push = {"duel_id": 5, "idempotency_key": "k"}
        backend.call("PushEvent", **push)
        backend.call("CloseDuel", duel_id=5, status=pb.DUEL_STATUS_FINISHED)
        equal(shown(backend.call("PushEvent", **push)), pushed(1, duplicate=True), "answer")


def _showing(case, backend):
    with case("GetDuel of a duel without events"):
        backend.call("OpenDuel", duel_id=6)
        equal(shown(backend.call("GetDuel", duel_id=6).duel), {
            "duel_id": "6", "status": "DUEL_STATUS_OPEN", "position": position(0), "declared": True, "created_at": TIME,
        }, "duel")
    with case("GetDuel of a closed duel"):
        equal(shown(backend.call("GetDuel", duel_id=4).duel), {
            "duel_id": "4", "status": "DUEL_STATUS_CANCELLED", "position": position(1), "oldest_seq": "1",
            "created_at": TIME, "updated_at": TIME,
        }, "duel")
    with case("GetDuel says when"):
        before = time.time()
        backend.call("PushEvent", duel_id=7)
        duel = backend.call("GetDuel", duel_id=7).duel
        times = [before - 0.001, duel.created_at.ToMilliseconds() / 1000, duel.updated_at.ToMilliseconds() / 1000, time.time()]
        equal(times, sorted(times), "before, created_at, updated_at, now")


def _listing(case, backend):
    numbers = [8, 9, 10, 100, 2**53 - 1]
    for number in numbers:
        backend.call("OpenDuel", duel_id=number)
    everything = list(range(1, 8)) + numbers
    for size in (1, 4, len(everything), 1000):
        with case(f"ListDuels in pages of {size}"):
            pages = _pages(backend, page_size=size)
            # No page is empty, and none but the last is short.
            equal([len(page) for page in pages[:-1]], [size] * (len(pages) - 1), "full pages")
            equal(bool(pages[-1]), True, "a last page with duels")
            equal([duel.duel_id for page in pages for duel in page], everything, "ids")
    statuses = {pb.DUEL_STATUS_FINISHED: [3, 5], pb.DUEL_STATUS_CANCELLED: [4], pb.DUEL_STATUS_OPEN: [1, 2, 6, 7, *numbers]}
    for status, wanted in statuses.items():
        with case(f"ListDuels of status {status}"):
            pages = _pages(backend, page_size=2, status=status)
            equal([duel.duel_id for page in pages for duel in page], wanted, "ids")
    with case("ListDuels has 100 duels on a page when nothing is said"):
        for number in range(1000, 1100):
            backend.call("OpenDuel", duel_id=number)
        equal(len(_pages(backend)[0]), 100, "first page")


def _pages(backend, **request):
    pages, token = [], None
    while token != "":
        answer = backend.call("ListDuels", page_token=token or "", **request)
        pages.append(list(answer.duels))
        token = answer.next_page_token
    return pages


# === Tickets ===


def tickets(case):
    with served(WEBSOCKET_TICKET_TTL_SECONDS="120") as (hub, backend):
        issued = _issuing(case, backend)
        _opening(case, hub, backend)
        _revoking(case, hub, backend)
        with case("no ticket shows in the log"):
            log = "\n".join(hub.log())
            equal([ticket for ticket in issued if ticket in log], [], "tickets in the log")


def _claims(ticket):
    body = ticket.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def _issuing(case, backend):
    issued = []
    # What is asked for, the role and the life that come of it.
    for request, role, life_s in [
        ({}, "player", 120),
        ({"role": pb.ROLE_PLAYER, "ttl": {"seconds": 1}}, "player", 1),
        ({"role": pb.ROLE_SPECTATOR, "ttl": {"seconds": 86_400}}, "spectator", 86_400),
    ]:
        with case(f"IssueTicket {request}"):
            answer = backend.call("IssueTicket", duel_id=1, user_id=2, **request)
            issued.append(answer.ticket)
            equal(_claims(answer.ticket), {
                "sub": "2", "duel": 1, "role": role, "aud": "duelhub", "jti": answer.jti, "iat": float,
                "exp": answer.expires_at.seconds,
            }, "claims")
            left_s = answer.expires_at.seconds - time.time()
            equal(life_s - 2 < left_s <= life_s, True, f"{left_s} s are left of {life_s} s")
    with case("IssueTicket stores nothing"):
        equal(backend.refused("GetDuel", {"duel_id": 1}).code, StatusCode.NOT_FOUND, "code")
    return issued


def _opening(case, hub, backend):
    with case("a ticket opens one connection"):
        ticket = backend.call("IssueTicket", duel_id=2, user_id=1).ticket
        with Player(hub.edge, ticket) as player:
            equal(player.next("connected", "error")["type"], "connected", "first time")
            _turned_away(hub, ticket, "ticket_already_used")


def _turned_away(hub, ticket, word):
    with Player(hub.edge, ticket) as player:
        frames, _ = player.rest()
        equal([frame["message"] for frame in frames], [word], "errors")


def _revoking(case, hub, backend):
    with case("RevokeTickets by jti, twice"):
        ticket, other = (backend.call("IssueTicket", duel_id=3, user_id=1) for _ in range(2))
        for _ in range(2):
            backend.call("RevokeTickets", jti=ticket.jti)
        _turned_away(hub, ticket.ticket, "invalid_ticket")
        with Player(hub.edge, other.ticket) as player:
            equal(player.next("connected", "error")["type"], "connected", "the ticket beside it")
    with case("RevokeTickets of a user leaves the open connection and takes its resume ticket"):
        with Player(hub.edge, backend.call("IssueTicket", duel_id=4, user_id=1).ticket) as player:
            resume = player.next("connected")["resume_ticket"]
            backend.call("RevokeTickets", user={"duel_id": 4, "user_id": 1})
            _turned_away(hub, resume, "invalid_ticket")
            player.send({"type": "ping"})
            player.next("pong")
    with case("RevokeTickets of a user tells a ticket before it from one after it"):
        # Often enough that some of them fall into one millisecond.
        for _ in range(50):
            before, elsewhere, other_user, after = _around_revocation(backend)
            _turned_away(hub, before, "invalid_ticket")
            for ticket in (elsewhere, other_user, after):
                with Player(hub.edge, ticket) as player:
                    equal(player.next("connected", "error")["type"], "connected", "a ticket that is not revoked")


def _around_revocation(backend):
    def issue(duel, user):
        return backend.call("IssueTicket", duel_id=duel, user_id=user).ticket

    before, elsewhere, other_user = issue(5, 1), issue(6, 1), issue(5, 2)
    backend.call("RevokeTickets", user={"duel_id": 5, "user_id": 1})
    return before, elsewhere, other_user, issue(5, 1)


# === Pushes, seen by players ===

AUDIENCES = [
    (None, {1, 2, 3}),
    ({}, {1, 2, 3}),
    ({"players": True}, {1, 2}),
    ({"only": {"user_ids": [2]}}, {2}),
    ({"only": {"user_ids": [1, 3, 99]}}, {1, 3}),
    ({"except": {"user_ids": [1]}}, {2, 3}),
    ({"except": {"user_ids": [1, 2]}}, {3}),
    ({"only": {"user_ids": [99]}}, set()),
]


def pushes(case):
    with served() as (hub, backend):
        players = {user: enter(hub, backend, 1, user) for user in (1, 2)}
        players[3] = enter(hub, backend, 1, 3, pb.ROLE_SPECTATOR)
        _audiences(case, backend, players)
        _views(case, backend, players)
        _bodies(case, backend, players[1])
        _coalescing(case, backend, players[1])
        _idempotency(case, backend)
        _disconnecting(case, hub, backend)
        _last_event(case, backend, players)


def _audiences(case, backend, players):
    seqs = {user: [] for user in players}
    for audience, receivers in AUDIENCES:
        with case(f"PushEvent to {audience}"):
            answer = backend.call("PushEvent", duel_id=1, type="note", audience=audience)
            equal(answer.connections, len(receivers), "connections")
            for user in receivers:
                seqs[user].append(answer.position.seq)
    last = backend.call("PushEvent", duel_id=1, type="note").position.seq
    for user, player in players.items():
        with case(f"user {user} receives what is addressed to them, and nothing else"):
            # The last event went to everybody: what has not come before it does not come.
            equal(_seqs_up_to(player, last), [*seqs[user], last], "seqs")


def _seqs_up_to(player, last):
    seqs = [0]
    while seqs[-1] != last:
        seqs.append(player.next("note")["seq"])
    return seqs[1:]


def _views(case, backend, players):
    with case("PushEvent with views is one event with several bodies"):
        answer = backend.call("PushEvent", duel_id=1, type="cards", payload_json='{"cards":[]}', views=[
            {"user_id": 1, "payload_json": '{"cards":["ace"]}'}, {"user_id": 2, "payload_json": '{"cards":["king"]}'},
        ])
        received = {user: player.next("cards") for user, player in players.items()}
        for user, cards in {1: ["ace"], 2: ["king"], 3: []}.items():
            frame = {"type": "cards", "seq": answer.position.seq, "payload": {"duel_id": 1, "cards": cards}}
            equal(received[user], frame, f"frame of user {user}")


def _bodies(case, backend, player):
    # What is pushed, and what the frame's payload has to be, byte for byte.
    for payload, wanted in [
        ("", '{"duel_id":1}'),
        ('{"a" : 1.50, "b":"\\u00e9 é"}', '{"duel_id":1,"a" : 1.50, "b":"\\u00e9 é"}'),
        ('{"a":1e2 ,"duel_id": 1}', '{"a":1e2 ,"duel_id": 1}'),
        ('{"inner":{"duel_id":5}}', '{"duel_id":1,"inner":{"duel_id":5}}'),
    ]:
        with case(f"PushEvent passes {payload!r} on"):
            seq = backend.call("PushEvent", duel_id=1, payload_json=payload).position.seq
            text = player.text()
            equal(json.loads(text)["type"], "duel_update", "type when none is said")
            equal((json.loads(text)["seq"], wanted in text), (seq, True), text)


def _coalescing(case, backend, player):
    with case("PushEvent with a coalesce key: the newest arrives"):
        for score in range(20):
            answer = backend.call("PushEvent", duel_id=1, type="score", coalesce_key="s", payload_json=f'{{"score":{score}}}')
        scores = [player.next("score")]
        while scores[-1]["seq"] != answer.position.seq:
            scores.append(player.next("score"))
        equal(scores[-1]["payload"]["score"], 19, "the newest score")


def _idempotency(case, backend):
    def push(key, duel=20, **more):
        return backend.call("PushEvent", duel_id=duel, idempotency_key=key, **more)

    rich = {"type": "hint", "payload_json": '{"a":1}', "audience": {"players": True}, "coalesce_key": "c",
            "views": [{"user_id": 1, "payload_json": '{"a":2}'}]}
    with case("PushEvent again with the same key and content"):
        first, again = push("rich", **rich), push("rich", **rich)
        equal((first.duplicate, again.duplicate), (False, True), "duplicate")
        equal(again.position, first.position, "position")
    with case("an idempotency key belongs to its duel"):
        equal(shown(push("rich", duel=21)), pushed(1), "the same key in another duel")
    with case("the last 256 keys are remembered"):
        push("first", duel=22)
        for number in range(255):
            push(f"k{number}", duel=22)
        equal(shown(push("first", duel=22)), pushed(1, duplicate=True), "the 256th last")
    with case("older keys are forgotten"):
        push("one more", duel=22)
        equal(shown(push("first", duel=22)), pushed(258), "the 257th last")


def _disconnecting(case, hub, backend):
    # What is asked, how the clients are told: word, close code, close reason.
    for request, told in [
        ({}, ("duel_access_denied", 4502, "duel_access_denied")),
        ({"reason": "banned: é"}, ("duel_access_denied", 4502, "banned: é")),
        ({"reconnect": True}, ("server_restart", 1012, "server_restart")),
        ({"reconnect": True, "reason": "moving"}, ("server_restart", 1012, "moving")),
    ]:
        with case(f"Disconnect {request}"):
            with enter(hub, backend, 30, 1) as one, enter(hub, backend, 30, 2) as two:
                equal(backend.call("Disconnect", duel_id=30, user_id=1, **request).connections, 1, "connections of one")
                equal(_farewell(one), told, "farewell")
                two.send({"type": "ping"})
                two.next("pong")
                equal(backend.call("Disconnect", duel_id=30, **request).connections, 1, "connections of all")
                equal(_farewell(two), told, "farewell of the other")
                equal(backend.call("Disconnect", duel_id=30).connections, 0, "connections when all are gone")


def _farewell(player):
    frames, closed = player.rest()
    return frames[-1].get("message"), closed.code, closed.reason


def _last_event(case, backend, players):
    last = {"payload_json": '{"winner":0}', "views": [{"user_id": 1, "payload_json": '{"winner":1}'}]}
    answer = None
    with case("CloseDuel hands the end to every connection"):
        answer = backend.call("CloseDuel", duel_id=1, status=pb.DUEL_STATUS_FINISHED, last_event=last)
        equal(answer.connections, 3, "connections")
    for user, player in players.items():
        with case(f"CloseDuel: user {user} receives the last event, the end, and is closed"), player:
            frames, closed = player.rest()
            end = answer.position.seq
            payload = {"duel_id": 1, "winner": 1 if user == 1 else 0}
            equal(frames[-2:], [
                {"type": "duel_update", "seq": end - 1, "payload": payload},
                {"type": "duel_closed", "duel_id": 1, "seq": end, "status": "finished"},
            ], "last frames")
            equal(closed.code, 4503, "close code")


# === The stream of pushes ===


def push(tag, **fields):
    return pb.PushEventsRequest(tag=tag, push=fields)


# A thousand pushes with these in their midst: place, push, error.
MISFITS = {
    100: (push(700, duel_id=1, type="Not A Type"), {"code": 3, "reason": "INVALID_FIELD", "field": "type"}),
    300: (pb.PushEventsRequest(tag=2100), {"code": 3, "reason": "INVALID_FIELD", "field": "push"}),
    500: (push(3500, duel_id=2), {"code": 9, "reason": "DUEL_CLOSED"}),
    501: (push(3507, duel_id=0), {"code": 3, "reason": "INVALID_FIELD", "field": "duel_id"}),
    700: (push(4900, duel_id=3, idempotency_key="k", type="other"), {"code": 6, "reason": "IDEMPOTENCY_KEY_REUSED"}),
    900: (push(6300, duel_id=1, audience={"only": {"user_ids": [0]}}),
          {"code": 3, "reason": "INVALID_FIELD", "field": "audience.only.user_ids[0]"}),
}


def stream(case):
    with served() as (hub, backend):
        _pipelined(case, backend)
        _one_by_one(case, backend)
        _too_large(case, backend)
        _unread(case, hub)


def _pipelined(case, backend):
    backend.call("CloseDuel", duel_id=2, status=pb.DUEL_STATUS_FINISHED)
    backend.call("PushEvent", duel_id=3, idempotency_key="k")
    sent = [push(7 * at, duel_id=1, payload_json=f'{{"at":{at}}}') for at in range(1000)]
    for at, (misfit, _) in MISFITS.items():
        sent[at] = misfit
    with case("PushEvents answers 1000 pushes sent at once"):
        answers = list(backend.push_all(sent))
        equal([answer.tag for answer in answers], [7 * at for at in range(1000)], "tags, in the order sent")
        stored = [answer.pushed.position.seq for at, answer in enumerate(answers) if at not in MISFITS]
        equal(stored, list(range(1, 1001 - len(MISFITS))), "seqs, dense")
    for at, (_, error) in MISFITS.items():
        with case(f"PushEvents answers push {at} with {error['reason']}, and goes on"):
            equal(shown(answers[at].error), error | {"message": str}, "error")


def _one_by_one(case, backend):
    with case("PushEvents answers each push while the stream is open"):
        outgoing = queue.Queue()
        answers = backend.stub.PushEvents(iter(outgoing.get, None), timeout=DEADLINE_S)
        # Two pushes of one key and one tag: the tag need not be unique, and 0 is fine.
        for wanted in (pushed(1), pushed(1, duplicate=True)):
            outgoing.put(push(0, duel_id=4, idempotency_key="k"))
            equal(shown(next(answers).pushed), wanted, "answer")
        outgoing.put(None)
        equal((list(answers), answers.code()), ([], StatusCode.OK), "the end")


def _too_large(case, backend):
    with case("PushEvents answers a push that is far too large, and goes on"):
        sent = [push(1, duel_id=5), push(2, duel_id=5, payload_json='{"a":"' + "x" * 2**20 + '"}'), push(3, duel_id=5)]
        answers = list(backend.push_all(sent))
        equal([(answer.tag, answer.error.code) for answer in answers], [(1, 0), (2, 3), (3, 0)], "answers")


def _unread(case, hub):
    with case("a sender who takes no answers holds up nobody else, and loses none"):
        count = 20_000
        with Backend(hub.control, options=NARROW) as sender, Backend(hub.control) as other:
            answers = sender.push_all(push(tag, duel_id=6) for tag in range(count))
            until(lambda: 6 in {duel.duel_id for duel in other.call("ListDuels").duels}, "the stream to be under way")
            for _ in range(100):
                other.call("PushEvent", duel_id=7)
            equal([answer.tag for answer in answers], list(range(count)), "tags")


# === Watching ===


def watching(case):
    with served() as (hub, backend):
        # Without a grace; with the default of 3 s, the waits below would be too short.
        people = [{"user_id": user} for user in (11, 13, 14)]
        backend.call("OpenDuel", duel_id=1, participants=people, settings={"presence_grace": {}})
        backend.call("PushEvent", duel_id=1)
        with enter(hub, backend, 1, 11) as player:
            player.send({"type": "ack", "seq": 1})
            until(lambda: _online(backend, 1).get(11) == ("ROLE_PLAYER", 1, 1), "the ack to arrive")
            with backend.watch(1) as changes:
                _state(case, changes)
                _changes(case, hub, backend, changes, player)
        _unknown_duel(case, backend)
        _all_duels(case, backend)


def _online(backend, duel):
    """Who is online: role, connections and acked_seq by user."""
    online = backend.call("GetDuel", duel_id=duel).duel.online
    return {user.user_id: (pb.Role.Name(user.role), user.connections, user.acked_seq) for user in online}


def _state(case, changes):
    with case("WatchDuels starts with the state"):
        state = [{"duel_id": "1", "initial": True} | change for change in (
            {"opened": {"position": position(1)}},
            {"user_online": {"user_id": "11", "role": "ROLE_PLAYER", "since": TIME}},
            {"acked": {"user_id": "11", "seq": "1"}},
        )]
        equal([shown(next(changes)) for _ in state], state, "state")
        equal(shown(next(changes))["synced"], {"duels": "1"}, "synced")


def _changes(case, hub, backend, changes, player):
    def told(name, **change):
        equal(shown(next(changes)), {"duel_id": "1", name: change}, "change")

    def offline(user, reason):
        told("user_offline", user_id=str(user), reason=f"OFFLINE_REASON_{reason}")

    def online(user, role):
        told("user_online", user_id=str(user), role=f"ROLE_{role}", since=TIME)

    with case("WatchDuels: a spectator comes, acks, closes; another duel is none of its business"):
        other = enter(hub, backend, 1, 12, pb.ROLE_SPECTATOR)
        online(12, "SPECTATOR")
        backend.call("PushEvent", duel_id=2)
        other.send({"type": "ack", "seq": 1})
        told("acked", user_id="12", seq="1")
        equal(_online(backend, 1), {11: ("ROLE_PLAYER", 1, 1), 12: ("ROLE_SPECTATOR", 1, 1)}, "online")
        left_at = time.monotonic()
        other.leave()
        offline(12, "CLIENT_CLOSED")
        equal(time.monotonic() - left_at < 2, True, "without the default grace")
    with case("WatchDuels: a player's network goes"):
        other = enter(hub, backend, 1, 13)
        online(13, "PLAYER")
        other.vanish()
        offline(13, "LOST")
    with case("WatchDuels: Disconnect"):
        backend.call("Disconnect", duel_id=1, user_id=11)
        offline(11, "DISCONNECTED")
        player.rest()
    with case("WatchDuels: CloseDuel"), enter(hub, backend, 1, 14):
        online(14, "PLAYER")
        backend.call("CloseDuel", duel_id=1, status=pb.DUEL_STATUS_CANCELLED)
        told("closed", status="DUEL_STATUS_CANCELLED", position=position(2))
        offline(14, "DUEL_CLOSED")


def _unknown_duel(case, backend):
    with case("WatchDuels of a duel that is yet to come"), backend.watch(50) as changes:
        equal(shown(next(changes))["synced"], {}, "synced")
        backend.call("CloseDuel", duel_id=50, status=pb.DUEL_STATUS_FINISHED)
        equal([shown(next(changes)) for _ in range(2)], [
            {"duel_id": "50", "opened": {"position": dict}},
            {"duel_id": "50", "closed": {"status": "DUEL_STATUS_FINISHED", "position": position(1)}},
        ], "changes")


def _all_duels(case, backend):
    with case("WatchDuels of all, with more duels than fit a page"):
        for tag, answer in enumerate(backend.push_all(push(tag, duel_id=1000 + tag) for tag in range(1500))):
            equal((answer.tag, answer.HasField("pushed")), (tag, True), "push")
        with backend.watch() as changes:
            told = _up_to_synced(changes)
            opened = [change.duel_id for change in told if change.HasField("opened")]
            equal(opened[-1500:], list(range(1000, 2500)), "duels of the state")
            equal(told[-1].synced.duels, len(opened), "count of the state")
            equal(backend.call("GetNode").counts.watchers, 1, "watchers")
        until(lambda: backend.call("GetNode").counts.watchers == 0, "the watcher to be gone")


def _up_to_synced(changes):
    told = [next(changes)]
    while not told[-1].HasField("synced"):
        told.append(next(changes))
    return told


# === Errors ===


def errors(case):
    with served() as (_, backend):
        refusals.prepare(backend)
        for (method, request), field in refusals.FIELDS:
            with case(f"{method} {str(request)[:120]} names {field}"):
                failure = backend.refused(method, request)
                _explained(failure, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", [field])
        for (method, request), code, reason in refusals.STATES:
            with case(f"{method} {request} is {reason}"):
                _explained(backend.refused(method, request), code, reason, [])
        for method, request in refusals.ALLOWED:
            with case(f"{method} {str(request)[:120]} is within the bounds"):
                backend.call(method, **request)
        with case("WatchDuels of 1000 duels is within the bounds"), backend.watch(*range(10_001, 11_001)) as changes:
            equal(next(changes).synced.duels, 0, "duels")
        for method, body in refusals.UNREADABLE:
            with case(f"{method} with the bytes {body!r}"):
                _unreadable(backend, method, body)


def _explained(failure, code, reason, fields):
    """The failure says what the manual says of every failure."""
    said = (failure.code, failure.reason, failure.fields, failure.domain)
    equal(said, (code, reason, fields, "duelhub"), failure.message)
    equal(failure.metadata["request_id"], failure.request_id, "request id in ErrorInfo and in x-request-id")
    equal(failure.request_id, REQUEST_ID, "x-request-id")


def _unreadable(backend, method, body):
    call = backend.channel.unary_unary(f"/{SERVICE.full_name}/{method}")
    failure = failure_of(lambda: call(body, timeout=DEADLINE_S))
    equal((failure.code, failure.reason), (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), failure.message)


# === Request ids ===

ADOPTED = ["a", "Trace-1.a_B", "x" * 64]
REPLACED = ["", "x" * 65, "two words", "semi;colon", "quote\""]


def request_ids(case):
    with served() as (hub, backend):
        for sent in ADOPTED + REPLACED:
            for name, ask in [("an answer", _answered_id), ("a failure", _failed_id), ("a stream", _streamed_id),
                              ("an unknown call", _unknown_call_id)]:
                with case(f"x-request-id {sent!r} in {name}"):
                    got = ask(backend, [("x-request-id", sent)])
                    equal(got, REQUEST_ID, "id")
                    equal(got == sent, sent in ADOPTED, f"adopted: {got!r}")
        with case("an answer has a request id of its own"):
            equal(len({_answered_id(backend, []) for _ in range(10)}), 10, "different ids")
        with case("the log has the request id"):
            _answered_id(backend, [("x-request-id", "find-me-in-the-log")])
            until(lambda: any("find-me-in-the-log" in line for line in hub.log()), "a line with the id")


def _answered_id(backend, metadata):
    return backend.answer("GetNode", {}, metadata)[1].get("x-request-id")


def _failed_id(backend, metadata):
    failure = backend.refused("GetDuel", {"duel_id": 1}, metadata)
    equal(failure.metadata["request_id"], failure.request_id, "id in ErrorInfo")
    return failure.request_id


def _streamed_id(backend, metadata):
    call = backend.stub.WatchDuels(pb.WatchDuelsRequest(), metadata=metadata, timeout=DEADLINE_S)
    got = dict(call.initial_metadata()).get("x-request-id")
    call.cancel()
    return got


def _unknown_call_id(backend, metadata):
    call = backend.channel.unary_unary(f"/{SERVICE.full_name}/NoSuchCall")
    failure = failure_of(lambda: call(b"", metadata=metadata, timeout=DEADLINE_S))
    equal(failure.code, StatusCode.UNIMPLEMENTED, "code")
    return failure.request_id


# === Health and reflection ===

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
REFLECTIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]
SERVICES = sorted([SERVICE.full_name, "grpc.health.v1.Health", *REFLECTIONS])


def node_health_and_reflection(case):
    with served() as (_, backend):
        _node(case, backend)
        health = health_pb2_grpc.HealthStub(backend.channel)
        for service in ("", SERVICE.full_name):
            request = health_pb2.HealthCheckRequest(service=service)
            with case(f"health Watch of {service!r}"), _health(backend, service) as statuses:
                _up_to_status(statuses, SERVING)
            with case(f"health Check of {service!r}"):
                equal(health.Check(request, timeout=DEADLINE_S).status, SERVING, "status")
        with case("health Check of a service that there is not"):
            request = health_pb2.HealthCheckRequest(service="no.such.Service")
            failure = failure_of(lambda: health.Check(request, timeout=DEADLINE_S))
            equal(failure.code, StatusCode.NOT_FOUND, "code")
        for reflection in REFLECTIONS:
            _reflection(case, backend, reflection)
        _library(case, backend)


@contextmanager
def _health(backend, service):
    stub = health_pb2_grpc.HealthStub(backend.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
    try:
        yield watch
    finally:
        watch.cancel()


def _up_to_status(statuses, wanted):
    """It may lag behind /readyz, so its first word need not be its last."""
    while next(statuses).status != wanted:
        pass


def _node(case, backend):
    with case("GetNode"):
        node = backend.call("GetNode")
        limits = {limit.name: limit.value for limit in node.limits}
        equal((node.engine, node.ready), ("memory", True), "engine and readiness")
        equal((limits["CONTROL_MAX_WATCHERS"], limits["ENGINE_MAX_LOG_EVENTS"]), (64, 1000), "limits")
        running_s = time.time() - node.started_at.ToMilliseconds() / 1000
        equal(abs(running_s - node.uptime.ToMilliseconds() / 1000) < 1, True, "uptime is the time since started_at")
    with case("GetNode counts nothing while there is nothing"):
        equal(shown(node.counts), {}, "counts")


def _ask(backend, reflection, *questions):
    """Versions 1 and 1alpha have the same messages under two names."""
    call = backend.channel.stream_stream(
        f"/{reflection}/ServerReflectionInfo", reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString)
    requests = (reflection_pb2.ServerReflectionRequest(**question) for question in questions)
    return list(call(requests, metadata=backend.metadata, timeout=DEADLINE_S))


def _reflection(case, backend, reflection):
    with case(f"{reflection} lists the services"):
        [answer] = _ask(backend, reflection, {"list_services": "*"})
        equal(sorted(service.name for service in answer.list_services_response.service), SERVICES, "services")
    wanted = [{"file_containing_symbol": f"duelhub.v1.{name}"} for name in ("ControlService", "ControlService.PushEvent", "View")]
    wanted += [{"file_by_filename": "duelhub/v1/control.proto"}]
    with case(f"{reflection} shows the proto, asked four times on one stream"):
        for answer in _ask(backend, reflection, *wanted):
            files = [FileDescriptorProto.FromString(file) for file in answer.file_descriptor_response.file_descriptor_proto]
            [control] = [file for file in files if file.name == "duelhub/v1/control.proto"]
            equal(_bare(control) == _own_descriptor(), True, "the same as the repository's")


def _own_descriptor():
    own = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(own)
    return _bare(own)


def _bare(file):
    """Without the comments, and without the JSON names, which not every compiler writes down."""
    file.ClearField("source_code_info")
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return file


def _library(case, backend):
    with case("grpcio's own reflection client finds its way"):
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(backend.channel))
        service = pool.FindServiceByName(SERVICE.full_name)
        equal([method.name for method in service.methods], [method.name for method in SERVICE.methods], "calls")


# === The bearer token ===


def bearer_token(case):
    with Hub(BINARY, CONTROL_TOKEN=TOKEN) as hub:
        with Backend(hub.control, bearer(TOKEN)) as backend:
            for name, ask in _doors(backend):
                with case(f"token: {name} with the right one"):
                    ask()
        for metadata in ([], bearer(""), bearer(TOKEN + "x"), bearer(TOKEN[:-1]), [("authorization", TOKEN)]):
            with Backend(hub.control, metadata) as backend:
                for name, ask in _doors(backend):
                    with case(f"token: {name} with {metadata}"):
                        _explained(failure_of(ask), StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", [])
        with case("no token shows in the log"):
            equal(TOKEN in "\n".join(hub.log()), False, "token in the log")


def _doors(backend):
    """One call of every kind: unary, stream of pushes, watch, health, reflection."""
    health, check = health_pb2_grpc.HealthStub(backend.channel), health_pb2.HealthCheckRequest()
    more = {"metadata": backend.metadata, "timeout": DEADLINE_S}
    return [
        ("GetNode", lambda: backend.call("GetNode")),
        ("PushEvents", lambda: next(backend.push_all([push(1, duel_id=1)]))),
        ("WatchDuels", lambda: next(backend.stub.WatchDuels(pb.WatchDuelsRequest(), **more))),
        ("health Check", lambda: health.Check(check, **more)),
        ("health Watch", lambda: next(health.Watch(check, **more))),
        *((name, lambda name=name: _ask(backend, name, {"list_services": "*"})) for name in REFLECTIONS),
    ]


# === Limits ===


def limits(case):
    tight = {"ENGINE_MAX_DUELS": "2", "ENGINE_MAX_LOG_EVENTS": "2", "CONTROL_MAX_WATCHERS": "1", "CONTROL_MAX_PAYLOAD_BYTES": "64"}
    with served(**tight) as (_, backend):
        with case("as many duels as there may be"):
            for duel in (1, 2):
                equal(backend.call("OpenDuel", duel_id=duel).created, True, f"duel {duel}")
        for method, request in [("OpenDuel", {}), ("PushEvent", {}), ("CloseDuel", {"status": pb.DUEL_STATUS_FINISHED})]:
            with case(f"{method} of one duel too many"):
                _limited(backend.refused(method, {"duel_id": 3} | request), "ENGINE_MAX_DUELS")
        with case("PushEvents to one duel too many"):
            [answer] = backend.push_all([push(1, duel_id=3)])
            equal(shown(answer.error), {"code": 8, "reason": "LIMIT_REACHED", "message": re.compile(".*ENGINE_MAX_DUELS.*")}, "error")
        with case("one watcher too many"), backend.watch() as changes:
            next(changes)
            _limited(backend.refused("WatchDuels", {}), "CONTROL_MAX_WATCHERS")
        with case("a payload over the node's own bound"):
            failure = backend.refused("PushEvent", {"duel_id": 1, "payload_json": '{"a":"' + "x" * 57 + '"}'})
            _explained(failure, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", ["payload_json"])
        with case("the log holds the newest events"):
            for _ in range(5):
                backend.call("PushEvent", duel_id=1)
            duel = backend.call("GetDuel", duel_id=1).duel
            equal((duel.oldest_seq, duel.position.seq), (4, 5), "oldest and newest seq")
    _slow_watcher(case)


def _limited(failure, limit):
    _explained(failure, StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", [])
    equal(failure.metadata["limit"], limit, "limit in ErrorInfo")


def _slow_watcher(case):
    with case("a watcher who does not read is told that it missed something"), served() as (hub, backend):
        with Backend(hub.control, options=NARROW) as slow, slow.watch() as changes:
            _up_to_synced(changes)
            count = 20_000
            stored = sum(answer.HasField("pushed") for answer in backend.push_all(push(0, duel_id=duel + 1) for duel in range(count)))
            equal(stored, count, "pushes")
            failure = failure_of(lambda: [None for _ in changes])
            _explained(failure, StatusCode.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW", [])


# === Shutdown ===


def shutdown(case):
    with served() as (hub, backend):
        outgoing = queue.Queue()
        answers = backend.stub.PushEvents(iter(outgoing.get, None), timeout=DEADLINE_S)
        outgoing.put(push(1, duel_id=1))
        next(answers)
        with backend.watch(1) as changes, _health(backend, "") as statuses:
            _up_to_synced(changes)
            _up_to_status(statuses, SERVING)
            hub.ask_to_stop()
            with case("shutdown shows in health Watch"):
                _up_to_status(statuses, NOT_SERVING)
            for name, call in [("WatchDuels", changes), ("PushEvents", answers)]:
                with case(f"shutdown ends {name}"):
                    _explained(failure_of(lambda call=call: next(call)), StatusCode.UNAVAILABLE, "SHUTTING_DOWN", [])
        outgoing.put(None)
        with case("shutdown ends with status 0"):
            equal(hub.terminate(), 0, "status")


if __name__ == "__main__":
    sys.exit(main([
        duels, tickets, pushes, stream, watching, errors, request_ids, node_health_and_reflection, bearer_token, limits,
        shutdown,
    ]))
