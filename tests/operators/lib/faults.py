"""What goes wrong in the tests: a hub for each kind of fault, with the alerts that it must and may cause."""

import os
import signal
import socket
import subprocess
import time

import grpc
from support.backend import NARROW, Backend
from support.player import Player
from support.stubs import pb

from .machines import Redis, background, enter, init_data, ticket_over_http

MIB = 1024 * 1024
DUEL = 1
PLAYERS = [{"user_id": 1}, {"user_id": 2}]

# name of the hub -> Fault
FAULTS = {}


class Fault:
    """`prepare` returns the hub, which is healthy until `strike`. `plays`: there is a duel on it all the time."""

    fires, may_fire, variables, plays = set(), set(), {}, True

    def __init_subclass__(cls):
        FAULTS[cls.name] = cls

    def __init__(self, world):
        self.world = world

    def prepare(self):
        return self.world.hub(self.name, **self.variables)

    def strike(self, hub):
        pass

    def mend(self, hub):
        """Ends the fault, and returns the alerts that end with it."""
        return set()


def play(world, hub, rate=10):
    """A declared duel of two players with pushes and pings, and tickets over HTTP."""
    backend = hub.backend()
    backend.call("OpenDuel", duel_id=DUEL, participants=PLAYERS)
    players = [enter(hub, backend, DUEL, user)[0] for user in (1, 2)]
    for player in players:
        world.keep_reading(player)
    world.loops.every(1 / rate, lambda: backend.call("PushEvent", duel_id=DUEL))
    world.loops.every(1, lambda: [player.send({"type": "ping"}) for player in players])
    world.loops.every(1, lambda: ticket_over_http(hub, DUEL, init_data(1)))


class Healthy(Fault):
    name = "healthy"

    def strike(self, hub):
        # A stranger now and then is nothing to be told of.
        self.world.loops.every(15, lambda: ticket_over_http(hub, DUEL, "nothing"))


class Restarted(Fault):
    """A restart, as at an update, is no fault."""

    name = "restarted"

    def strike(self, hub):
        hub.terminate()
        hub.start()


class Stopped(Fault):
    name = "stopped"
    fires = {"DuelhubDown"}
    # The moments after it goes on.
    may_fire = {"DuelhubNotReady"}

    def strike(self, hub):
        hub.signal(signal.SIGSTOP)

    def mend(self, hub):
        hub.signal(signal.SIGCONT)
        return self.fires


class Looping(Fault):
    name = "looping"
    fires = {"DuelhubRestarting"}

    def strike(self, hub):
        def crash():
            for _ in range(4):
                hub.kill()
                hub.start()
                # Long enough to be scraped, short enough for the alert.
                time.sleep(2.5)
        background(crash)


class FullDisk(Fault):
    name = "full-disk"
    fires = {"DuelhubStoreUnusable", "DuelhubNotReady", "DuelhubPushesFailing", "DuelhubLimitReached"}

    def prepare(self):
        return self.world.hub(self.name, folder=self.world.disk / "data")

    def strike(self, hub):
        free = os.statvfs(self.world.disk)
        self.ballast = self.world.disk / "ballast"
        size = free.f_bavail * free.f_frsize - 64 * MIB
        subprocess.run(["fallocate", "-l", str(size), self.ballast], check=True)

    def mend(self, hub):
        self.ballast.unlink()
        return self.fires


class RedisAway(Fault):
    name = "redis-away"
    fires = {"DuelhubStoreUnusable", "DuelhubNotReady", "DuelhubPushesFailing", "DuelhubTicketsRefused"}
    # Calls wait 2 s for Redis.
    may_fire = {"DuelhubPushesSlow", "DuelhubEventsLate"}

    def prepare(self):
        self.redis = self.world.redis(self.name)
        return self.world.hub(self.name, ENGINE="redis", REDIS_URL=self.redis.url)

    def strike(self, hub):
        self.redis.signal(signal.SIGSTOP)

    def mend(self, hub):
        self.redis.signal(signal.SIGCONT)
        return self.fires


class SlowStore(RedisAway):
    name = "slow-store"
    fires = {"DuelhubPushesSlow"}
    may_fire = {"DuelhubEventsLate"}

    def strike(self, hub):
        def stand_still():
            self.redis.signal(signal.SIGSTOP)
            time.sleep(0.3)
            self.redis.signal(signal.SIGCONT)
        self.world.loops.every(0.05, stand_still)

    def mend(self, hub):
        return set()


class DeafToRedis(RedisAway):
    """Redis takes everything and tells nothing."""

    name = "deaf-to-redis"
    fires = {"DuelhubEventsLate"}
    may_fire = {"DuelhubNotReady", "DuelhubPushesSlow"}

    def prepare(self):
        hub = super().prepare()
        # A node knows of its own pushes, whatever Redis tells.
        self.other = self.world.hub(f"{self.name}-other", ENGINE="redis", REDIS_URL=self.redis.url)
        return hub

    def strike(self, hub):
        backend, client = self.other.backend(), self.redis.connection()
        self.world.loops.every(0.1, lambda: backend.call("PushEvent", duel_id=DUEL))
        self.world.loops.every(0.02, lambda: client.sendall(b"CLIENT KILL TYPE pubsub\r\n"))
        self.world.loops.every(0.5, lambda: client.recv(65536))

    def mend(self, hub):
        return set()


class Knocked(Fault):
    """Somebody without a token, and somebody who makes no call."""

    name = "knocked"
    fires = {"DuelhubCallersRefused"}
    variables = {"CONTROL_TOKEN": "a-token-of-sixteen-bytes-or-more"}
    plays = False

    def strike(self, hub):
        stranger = hub.backend()
        self.world.loops.every(0.3, lambda: stranger.call("GetNode"))
        host, port = hub.control.rsplit(":", 1)
        # The hub has room for 32 that make no call.
        self.world.loops.every(0.1, lambda: self.world.keep(socket.create_connection((host, int(port)))))


class Refusing(Fault):
    """Tickets that are none, and initData that nobody signed."""

    name = "refusing"
    fires = {"DuelhubHandshakesRefused", "DuelhubTicketsRefused"}

    def strike(self, hub):
        self.world.loops.every(0.2, lambda: Player(hub.edge, "no-ticket").rest())
        self.world.loops.every(0.2, lambda: ticket_over_http(hub, DUEL, "nothing"))


class Crowded(Fault):
    """Every bound nearly reached, and one reached."""

    name = "crowded"
    fires = {"DuelhubConnectionsNearLimit", "DuelhubDescriptorsNearLimit", "DuelhubTicketsNearlyFull",
             "DuelhubLimitReached"}
    variables = {"WEBSOCKET_MAX_CONNECTIONS": "100", "ENGINE_MAX_REMEMBERED_TICKETS": "1000", "CONTROL_MAX_WATCHERS": "1",
                 "WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS": "60"}

    def strike(self, hub):
        backend = hub.backend()
        for user in range(3, 88):
            player, _ = enter(hub, backend, user, user)
            self.world.keep_reading(player)
        for number in range(700):
            backend.call("RevokeTickets", jti=f"{number:032x}")
        subprocess.run(["prlimit", f"--pid={hub.pid}", "--nofile=500:"], check=True)
        host, port = hub.edge.rsplit(":", 1)
        for _ in range(345):
            self.world.keep(socket.create_connection((host, int(port))))
        first = hub.backend()
        self.world.keep(first.stub.WatchDuels(pb.WatchDuelsRequest()))
        second = hub.backend()
        self.world.loops.every(0.5, lambda: list(second.stub.WatchDuels(pb.WatchDuelsRequest(), timeout=5)))


class Misfits(Fault):
    """A watcher who does not read, more duels than there should be, undeclared ones, a copied ticket."""

    name = "misfits"
    fires = {"DuelhubWatcherTooSlow", "DuelhubDuelsNearLimit", "DuelhubPushesUndeclared", "DuelhubTicketCopied"}
    # 20000 pushes at once wait for each other.
    may_fire = {"DuelhubPushesSlow"}

    def strike(self, hub):
        self._copied_ticket(hub)
        slow, backend = Backend(hub.control, options=NARROW), hub.backend()
        watch = slow.stub.WatchDuels(pb.WatchDuelsRequest())
        next(watch)
        self.world.keep((slow, watch))
        pushes = (pb.PushEventsRequest(push={"duel_id": duel}) for duel in range(100, 20_100))
        background(lambda: [None for _ in backend.stub.PushEvents(pushes)])
        self.world.loops.every(0.5, lambda: backend.call("PushEvent", duel_id=99))

    def _copied_ticket(self, hub):
        backend = hub.backend()
        player, welcome = enter(hub, backend, DUEL, 1)
        ticket = welcome["resume_ticket"]
        copies = []
        for _ in range(2):
            player = Player(hub.edge, ticket)
            copies.append(player.next("connected")["resume_ticket"])
        for copy in copies:
            Player(hub.edge, copy).text()


class Sluggish(Fault):
    """Players who do not read."""

    name = "sluggish"
    fires = {"DuelhubClientsTooSlow"}

    def strike(self, hub):
        backend = hub.backend()
        self.user = 10
        large = '{"text":"' + "x" * 60_000 + '"}'
        self.world.loops.every(0.05, lambda: backend.call("PushEvent", duel_id=2, payload_json=large))
        # Declared, so that nothing else fires. Then only spectators may enter.
        backend.call("OpenDuel", duel_id=2, participants=PLAYERS)

        def newcomer():
            self.user += 1
            player, _ = enter(hub, backend, 2, self.user, pb.ROLE_SPECTATOR)
            player._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.world.keep(player)
        self.world.loops.every(0.7, newcomer)


class Unheard(Fault):
    """Nobody reads its log."""

    name = "unheard"
    fires = {"DuelhubLogLinesLost"}
    variables = {"LOG_LEVEL": "trace"}

    def strike(self, hub):
        hub.plug_ears()
        backend = hub.backend()

        def fill():
            while not hub.metric("duelhub_log_lines_lost_total"):
                for _ in range(200):
                    backend.call("GetNode")
        background(fill)
