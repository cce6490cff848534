"""OpenDuel, CloseDuel, GetDuel, ListDuels."""

import time

from support.backend import shown
from support.cases import equal
from support.scene import TIME, position, pushed, served
from support.stubs import pb


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
        request = {"duel_id": 5, "idempotency_key": "k"}
        backend.call("PushEvent", **request)
        backend.call("CloseDuel", duel_id=5, status=pb.DUEL_STATUS_FINISHED)
        equal(shown(backend.call("PushEvent", **request)), pushed(1, duplicate=True), "answer")


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
        created, updated = (stamp.ToMilliseconds() / 1000 for stamp in (duel.created_at, duel.updated_at))
        # The hub's clock is read to the millisecond below.
        times = [before - 0.001, created, updated, time.time()]
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
    statuses = {
        pb.DUEL_STATUS_FINISHED: [3, 5], pb.DUEL_STATUS_CANCELLED: [4], pb.DUEL_STATUS_OPEN: [1, 2, 6, 7, *numbers],
    }
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
