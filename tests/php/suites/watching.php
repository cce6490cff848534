<?php

// A watch: the state, then what happens.

declare(strict_types=1);

use Duelhub\Answer\Change;
use Duelhub\DuelStatus;
use Duelhub\Error\InvalidArgument;
use Duelhub\Error\Unavailable;
use Duelhub\Role;

return static function (string $binary): void {
    $hub = new Hub($binary);
    $client = $hub->client();
    $next = static function (Generator $changes, string $kind): Change {
        do {
            $change = $changes->current();
            $changes->next();
        } while ($change->kind !== $kind);
        return $change;
    };

    check('the state, then players come and go, then the end', function () use ($hub, $client, $next) {
        $client->openDuel(1, [1001]);
        $changes = $client->watchDuels(['1']);
        $opened = $next($changes, 'opened');
        equal([$opened->duelId, $opened->initial, $opened->position->seq], [1, true, 0]);
        $ticket = $client->issueTicket(1, 1001)->ticket;
        // The generator waits for the change after the one it is asked for.
        equal($changes->current()->kind, 'synced');
        $player = new Player($hub->edge, $ticket);
        $changes->next();
        $online = $changes->current();
        equal([$online->kind, $online->userId, $online->role, $online->initial], ['userOnline', 1001, Role::Player, false]);
        holds(abs($online->since->getTimestamp() - time()) < 60, 'since');
        $player->leave();
        $changes->next();
        $offline = $changes->current();
        equal([$offline->kind, $offline->userId, $offline->reason], ['userOffline', 1001, 'OFFLINE_REASON_LOST']);
        $client->closeDuel(1);
        $changes->next();
        $closed = $changes->current();
        equal([$closed->kind, $closed->status, $closed->position->seq], ['closed', DuelStatus::Finished, 1]);
    });

    check('all duels, many at once', function () use ($client, $next) {
        foreach (range(100, 400) as $duel) {
            $client->openDuel($duel);
        }
        $ids = [];
        foreach ($client->watchDuels() as $change) {
            if ($change->kind === 'synced') {
                break;
            }
            $ids[$change->duelId] = true;
        }
        equal(array_diff(range(100, 400), array_keys($ids)), [], 'duels missing');
        until(fn () => $client->getNode()->counts['watchers'] === 0, 'the hub saw the watchers go');
    });

    check('a watch is stopped', function () use ($client) {
        $asked = 0;
        foreach ($client->watchDuels([100], function () use (&$asked) {
            return ++$asked > 3;
        }) as $_) {
        }
        equal($asked, 4);
    });

    check('a watch that cannot be', function () use ($client) {
        equal(failure(InvalidArgument::class, fn () => $client->watchDuels([0])->current())->field, 'duel_ids[0]');
    });

    check('the hub stops', function () use ($hub, $client, $next) {
        $changes = $client->watchDuels([100]);
        equal($changes->current()->kind, 'opened');
        $changes->next();
        $hub->stop();
        equal(failure(Unavailable::class, fn () => $changes->next())->reason, 'SHUTTING_DOWN');
    });
};
