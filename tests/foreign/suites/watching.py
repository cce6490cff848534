"""WatchDuels: the state, then what changes."""

import time

from support.backend import shown
from support.cases import equal
from support.hub import until
from support.scene import TIME, enter, position, push, served, up_to_synced
from support.stubs import pb


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
            told = up_to_synced(changes)
            opened = [change.duel_id for change in told if change.HasField("opened")]
            equal(opened[-1500:], list(range(1000, 2500)), "duels of the state")
            equal(told[-1].synced.duels, len(opened), "count of the state")
            equal(backend.call("GetNode").counts.watchers, 1, "watchers")
        until(lambda: backend.call("GetNode").counts.watchers == 0, "the watcher to be gone")
