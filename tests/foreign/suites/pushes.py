"""PushEvent, Disconnect and CloseDuel, as the players see them."""

import json

from support.backend import shown
from support.cases import equal
from support.scene import enter, pushed, served
from support.stubs import pb

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
            body = json.dumps({"score": score})
            answer = backend.call("PushEvent", duel_id=1, type="score", coalesce_key="s", payload_json=body)
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
