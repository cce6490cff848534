"""What the manual forbids, as a table: every request here fails, with this code, this reason, and this field named.

And beside it what the manual just allows, so that no bound is drawn too tight.
"""

from grpc import StatusCode

from support.stubs import pb

FINISHED = pb.DUEL_STATUS_FINISHED
ID_MAX = 2**53 - 1
KIB = 1024

# Duels that `prepare` brings into these states.
OPEN, CLOSED, DECLARED, UNKNOWN = 800, 801, 802, 899
KEY = {"idempotency_key": "used", "payload_json": '{"round":1}'}


def prepare(backend):
    backend.call("PushEvent", duel_id=OPEN, **KEY)
    backend.call("CloseDuel", duel_id=CLOSED, status=FINISHED)
    backend.call("OpenDuel", duel_id=DECLARED, participants=[{"user_id": 1}, {"user_id": 2}])


def _payload(size):
    """A payload of so many bytes."""
    return '{"a":"' + "x" * (size - 8) + '"}'


def _people(count):
    return [{"user_id": number} for number in range(1, count + 1)]


def _views(count, size=2):
    return [{"user_id": number, "payload_json": "{}" if size == 2 else _payload(size)} for number in range(1, count + 1)]


def _span(seconds, nanos=0):
    return {"seconds": seconds, "nanos": nanos}


def _push(**fields):
    return "PushEvent", {"duel_id": OPEN} | fields


def _last(**fields):
    return "CloseDuel", {"duel_id": OPEN, "status": FINISHED, "last_event": fields}


def _open(**fields):
    return "OpenDuel", {"duel_id": OPEN} | fields


def _ticket(**fields):
    return "IssueTicket", {"duel_id": OPEN, "user_id": 1} | fields


# Where an id has to be: call, the rest of the request, the id's name.
_IDS = [
    ("OpenDuel", {}, "duel_id"), ("IssueTicket", {"user_id": 1}, "duel_id"), ("IssueTicket", {"duel_id": 1}, "user_id"),
    ("PushEvent", {}, "duel_id"), ("CloseDuel", {"status": FINISHED}, "duel_id"), ("GetDuel", {}, "duel_id"),
    ("Disconnect", {}, "duel_id"),
]

# (call, request), the field at fault. All of them are INVALID_ARGUMENT INVALID_FIELD.
FIELDS = [((call, rest | {name: number}), name) for call, rest, name in _IDS for number in (0, ID_MAX + 1, 2**64 - 1)] + [
    (_open(participants=_people(65)), "participants"),
    (_open(participants=[{"user_id": 1}, {"user_id": 0}]), "participants[1].user_id"),
    (_open(participants=[{"user_id": ID_MAX + 1}]), "participants[0].user_id"),
    (_open(participants=[{"user_id": 1, "telegram_id": ID_MAX + 1}]), "participants[0].telegram_id"),
    (_open(participants=[{"user_id": 1}, {"user_id": 1, "telegram_id": 5}]), "participants[1].user_id"),
    (_open(participants=[{"user_id": 1}, {"user_id": 2, "telegram_id": 1}]), "participants[1].telegram_id"),
    (("OpenDuel", {"duel_id": DECLARED, "participants": [{"user_id": 3, "telegram_id": 1}]}), "participants"),
    (("OpenDuel", {"duel_id": DECLARED, "participants": _people(65)[2:] + [{"user_id": 99}]}), "participants"),
    (_open(settings={"presence_grace": _span(60, 1)}), "settings.presence_grace"),
    (_open(settings={"presence_grace": _span(-1)}), "settings.presence_grace"),
    (_open(settings={"presence_grace": _span(0, -1)}), "settings.presence_grace"),
    (_ticket(role=7), "role"),
    (_ticket(ttl=_span(0)), "ttl"),
    (_ticket(ttl=_span(0, 999_999_999)), "ttl"),
    (_ticket(ttl=_span(1, 500_000_000)), "ttl"),
    (_ticket(ttl=_span(86_401)), "ttl"),
    (_ticket(ttl=_span(-1)), "ttl"),
    (_ticket(ttl=_span(2**63 - 1, 2**31 - 1)), "ttl"),
    (_ticket(ttl=_span(-(2**63), -(2**31))), "ttl"),
    (("RevokeTickets", {}), "tickets"),
    (("RevokeTickets", {"jti": ""}), "jti"),
    (("RevokeTickets", {"jti": "x" * 65}), "jti"),
    (("RevokeTickets", {"user": {"user_id": 1}}), "user.duel_id"),
    (("RevokeTickets", {"user": {"duel_id": 1}}), "user.user_id"),
    *((_push(type=text), "type") for text in ("A", "1a", "_a", "a b", 'a"', "é", "x" * 65)),
    *((_push(type=text), "type") for text in ("connected", "presence", "duel_closed", "pong", "error")),
    *((_push(payload_json=text), "payload_json") for text in ("[]", "1", "null", "{", "{}{}", "{'a':1}", '{"a":}')),
    *((_push(payload_json=text), "payload_json")
      for text in ('{"duel_id":1}', f'{{"duel_id":"{OPEN}"}}', '{"duel_id":null}')),
    (_push(payload_json=_payload(64 * KIB + 1)), "payload_json"),
    (_push(payload_json=_payload(KIB * KIB)), "payload_json"),
    (_push(audience={"players": False}), "audience.players"),
    (_push(audience={"only": {}}), "audience.only.user_ids"),
    (_push(audience={"only": {"user_ids": range(1, 66)}}), "audience.only.user_ids"),
    (_push(audience={"only": {"user_ids": [1, 1]}}), "audience.only.user_ids[1]"),
    (_push(audience={"except": {}}), "audience.except.user_ids"),
    (_push(audience={"except": {"user_ids": [1, 0]}}), "audience.except.user_ids[1]"),
    (_push(views=_views(65)), "views"),
    (_push(views=_views(1) + _views(1)), "views[1].user_id"),
    (_push(views=[{"payload_json": "{}"}]), "views[0].user_id"),
    (_push(views=[{"user_id": 1, "payload_json": "[]"}]), "views[0].payload_json"),
    (_push(views=[{"user_id": 1, "payload_json": '{"duel_id":1}'}]), "views[0].payload_json"),
    (_push(views=_views(1, 64 * KIB + 1)), "views[0].payload_json"),
    (_push(views=_views(2), audience={"only": {"user_ids": [1]}}), "views[1].user_id"),
    (_push(views=_views(2), audience={"except": {"user_ids": [2]}}), "views[1].user_id"),
    (_push(payload_json=_payload(64 * KIB), views=_views(3, 64 * KIB) + [{"user_id": 4, "payload_json": "{}"}]), "views"),
    (_push(idempotency_key="x" * 129), "idempotency_key"),
    (_push(idempotency_key="é" * 65), "idempotency_key"),
    (_push(coalesce_key="x" * 65), "coalesce_key"),
    (("CloseDuel", {"duel_id": OPEN}), "status"),
    (("CloseDuel", {"duel_id": OPEN, "status": pb.DUEL_STATUS_OPEN}), "status"),
    (("CloseDuel", {"duel_id": OPEN, "status": 9}), "status"),
    (_last(type="pong"), "last_event.type"),
    (_last(payload_json="[]"), "last_event.payload_json"),
    (_last(audience={"players": False}), "last_event.audience.players"),
    (_last(views=[{"user_id": 0}]), "last_event.views[0].user_id"),
    (("ListDuels", {"page_size": 1001}), "page_size"),
    (("ListDuels", {"page_token": "nonsense"}), "page_token"),
    (("ListDuels", {"status": 9}), "status"),
    (("Disconnect", {"duel_id": OPEN, "user_id": ID_MAX + 1}), "user_id"),
    (("Disconnect", {"duel_id": OPEN, "reason": "x" * 121}), "reason"),
    (("Disconnect", {"duel_id": OPEN, "reason": "é" * 61}), "reason"),
    (("WatchDuels", {"duel_ids": range(1, 1002)}), "duel_ids"),
    (("WatchDuels", {"duel_ids": [1, 0]}), "duel_ids[1]"),
    (("WatchDuels", {"duel_ids": [ID_MAX + 1]}), "duel_ids[0]"),
]

# (call, request), code, reason.
STATES = [
    (("OpenDuel", {"duel_id": CLOSED}), StatusCode.FAILED_PRECONDITION, "DUEL_CLOSED"),
    (("IssueTicket", {"duel_id": CLOSED, "user_id": 1}), StatusCode.FAILED_PRECONDITION, "DUEL_CLOSED"),
    (("PushEvent", {"duel_id": CLOSED}), StatusCode.FAILED_PRECONDITION, "DUEL_CLOSED"),
    (("CloseDuel", {"duel_id": CLOSED, "status": pb.DUEL_STATUS_CANCELLED}), StatusCode.FAILED_PRECONDITION, "DUEL_CLOSED"),
    (("IssueTicket", {"duel_id": DECLARED, "user_id": 3}), StatusCode.PERMISSION_DENIED, "NOT_A_PARTICIPANT"),
    (("GetDuel", {"duel_id": UNKNOWN}), StatusCode.NOT_FOUND, "DUEL_UNKNOWN"),
    *((_push(**KEY | change), StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED") for change in (
        {"payload_json": '{"round":2}'}, {"type": "hint"}, {"audience": {"players": True}}, {"views": _views(1)},
        {"coalesce_key": "k"},
    )),
]

# What is just within the bounds.
ALLOWED = [
    _open(duel_id=ID_MAX, participants=[{"user_id": ID_MAX, "telegram_id": ID_MAX}]),
    _open(duel_id=803, participants=_people(64), settings={"presence_grace": _span(60)}),
    _open(duel_id=803, settings={"presence_grace": _span(0)}),
    _ticket(ttl=_span(1)),
    _ticket(ttl=_span(86_400)),
    ("IssueTicket", {"duel_id": DECLARED, "user_id": 3, "role": pb.ROLE_SPECTATOR}),
    ("RevokeTickets", {"jti": "x" * 64}),
    _push(type="a" + "0_.-" * 15 + "xyz"),
    _push(payload_json=_payload(64 * KIB)),
    _push(payload_json=f'{{"duel_id":{OPEN}}}'),
    _push(payload_json=_payload(64 * KIB), views=_views(3, 64 * KIB)),
    _push(views=_views(64), audience={"only": {"user_ids": range(1, 65)}}),
    _push(audience={}),
    _push(idempotency_key="x" * 128, coalesce_key="y" * 64),
    ("ListDuels", {"page_size": 1000}),
    ("Disconnect", {"duel_id": UNKNOWN, "user_id": ID_MAX, "reason": "x" * 120}),
]

# Bytes that are no request: call, what is sent. A wrong wire type, a length that is not there, text that is not UTF-8.
UNREADABLE = [("GetDuel", b"\x0a\x00"), ("PushEvent", b"\x1a\x7f"), ("PushEvent", b"\x08\x01\x1a\x02\xff\xfe")]
