"""IssueTicket and RevokeTickets, as the players find out."""

import base64
import json
import time

from grpc import StatusCode

from support.cases import equal
from support.player import Player
from support.scene import served
from support.stubs import pb


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
                "sub": "2", "duel": 1, "role": role, "aud": "duelhub", "jti": answer.jti, "iat": int, "rev": 0,
                "exp": answer.expires_at.seconds,
            }, "claims")
            left_s = answer.expires_at.seconds - time.time()
            equal(life_s - 1 < left_s <= life_s + 1, True, f"{left_s} s are left of {life_s} s")
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
