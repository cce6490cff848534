<?php

// Every call, and what its arguments and answers mean.

declare(strict_types=1);

use Duelhub\Answer\DuelSummary;
use Duelhub\Audience;
use Duelhub\DuelStatus;
use Duelhub\Error\DuelUnknown;
use Duelhub\LastEvent;
use Duelhub\Participant;
use Duelhub\Role;

return static function (string $binary): void {
    $hub = new Hub($binary);
    $client = $hub->client();
    $join = static fn (int $duel, int $user, Role $role = Role::Player) =>
        new Player($hub->edge, $client->issueTicket($duel, $user, $role)->ticket);

    check('a duel is opened, extended and shown', function () use ($client) {
        $opened = $client->openDuel(1, [1001, '1002'], presenceGraceSeconds: 1.5);
        equal([$opened->created, $opened->position->seq], [true, 0]);
        equal($client->openDuel('1', [new Participant(1003, '93')])->created, false, 'created');
        $duel = $client->getDuel(1);
        equal([$duel->duelId, $duel->status, $duel->declared, $duel->connections], [1, DuelStatus::Open, true, 0]);
        equal(array_column($duel->participants, 'telegramId', 'userId'), [1001 => 1001, 1002 => 1002, 1003 => 93]);
        equal([$duel->updatedAt, $duel->online], [null, []]);
        holds(abs($duel->createdAt->getTimestamp() - time()) < 60, 'created just now');
    });

    check('ids come as numbers or as texts, and payloads keep their bytes', function () use ($client, $join) {
        $player = $join(2, 1001);
        $player->next('connected');
        $pushed = $client->pushEvent('2', ['big' => 9007199254740993, 'half' => 1.0, 'text' => 'два/2', 'list' => []]);
        equal([$pushed->position->seq, $pushed->duplicate, $pushed->connections, $pushed->declared], [1, false, 1, false]);
        holds(str_contains($player->text(), '"big":9007199254740993,"half":1.0,"text":"два/2","list":[]'), 'the bytes');
    });

    check('an empty array is an empty object', function () use ($client, $join) {
        $client->pushEvent(3, []);
        $client->pushEvent(3, views: [1001 => []]);
        $client->closeDuel(4, lastEvent: new LastEvent());
        equal($join(3, 1001)->next('duel_update')['payload'], ['duel_id' => 3]);
    });

    check('a key stores one event', function () use ($client) {
        $first = $client->pushEvent(5, ['round' => 1], 'round-1');
        $again = $client->pushEvent(5, ['round' => 1], 'round-1');
        equal([$again->duplicate, $again->position->seq], [true, $first->position->seq]);
        equal($client->pushEvent(5, ['round' => 1])->position->seq, 2, 'no key: another event');
    });

    check('audience, views, type and transient', function () use ($client, $join) {
        $client->openDuel(6, [1, 2]);
        [$one, $two, $guest] = [$join(6, 1), $join(6, 2), $join(6, 9, Role::Spectator)];
        array_map(static fn (Player $player) => $player->next('connected'), [$one, $two, $guest]);
        $client->pushEvent(6, ['to' => 'players'], type: 'a', audience: Audience::players(), transient: true);
        $client->pushEvent(6, ['to' => 'two'], type: 'b', audience: Audience::only('2'), coalesceKey: 'score');
        $client->pushEvent(6, ['to' => 'others'], type: 'c', audience: Audience::except(2));
        $client->pushEvent(6, ['for' => 'all'], type: 'd', views: [1 => ['for' => 'one'], '2' => ['for' => 'two']]);
        $seen = static function (Player $player, string ...$types): array {
            return array_map(static fn () => array_reverse($player->next('a', 'b', 'c', 'd')['payload'])
                [$types[0] === 'd' ? 'for' : 'to'], $types);
        };
        equal($seen($one, 'a', 'c'), ['players', 'others']);
        equal($seen($two, 'a', 'b'), ['players', 'two']);
        equal($seen($guest, 'c'), ['others']);
        equal([...$seen($one, 'd'), ...$seen($two, 'd'), ...$seen($guest, 'd')], ['one', 'two', 'all']);
        equal(array_column($client->getDuel(6)->online, 'role', 'userId'),
            [1 => Role::Player, 2 => Role::Player, 9 => Role::Spectator], 'online');
    });

    check('tickets expire, and are revoked by id and by user', function () use ($client, $hub) {
        $ticket = $client->issueTicket('7', '1001', ttlSeconds: 60);
        $life = $ticket->expiresAt->getTimestamp() - time();
        holds($life > 50 && $life < 70, "the ticket lives for $life s");
        $client->revokeTicket($ticket->jti);
        equal((new Player($hub->edge, $ticket->ticket))->next('error')['message'], 'invalid_ticket');
        $ticket = $client->issueTicket(7, 1001);
        $client->revokeTicketsOf(7, 1001);
        equal((new Player($hub->edge, $ticket->ticket))->next('error')['message'], 'invalid_ticket');
    });

    check('a duel is closed with its last event, and begins anew', function () use ($client, $join) {
        $player = $join(8, 1001);
        $player->next('connected');
        $closed = $client->closeDuel(8, DuelStatus::Cancelled, new LastEvent(['why' => 'called off'], type: 'end'));
        equal([$closed->position->seq, $closed->duplicate, $closed->connections], [2, false, 1]);
        equal($player->next('end')['payload']['why'], 'called off');
        equal($player->next('duel_closed')['status'], 'cancelled');
        equal($client->closeDuel(8, DuelStatus::Cancelled)->duplicate, true, 'duplicate');
        equal($client->openDuel(8, reopen: true)->created, true, 'created anew');
    });

    check('connections are closed', function () use ($client, $join) {
        [$one, $two] = [$join(9, 1), $join(9, 2)];
        $one->next('connected');
        $two->next('connected');
        equal($client->disconnect(9, '1', reconnect: true, reason: 'moved'), 1);
        equal($one->next('error')['message'], 'server_restart');
        equal($client->disconnect(9), 1);
        equal($two->next('error')['message'], 'duel_access_denied');
    });

    check('duels are listed over pages', function () use ($client) {
        foreach (range(101, 105) as $duel) {
            $client->openDuel($duel);
        }
        $client->closeDuel(103);
        $ids = static fn (iterable $duels) => array_map(
            static fn (DuelSummary $duel) => $duel->duelId, iterator_to_array($duels, preserve_keys: false));
        $listed = $ids($client->listDuels(pageSize: 2));
        equal(array_slice($listed, -5), [101, 102, 103, 104, 105]);
        equal($ids($client->listDuels(pageSize: 1000)), $listed);
        equal(array_slice($ids($client->listDuels(DuelStatus::Open, 2)), -4), [101, 102, 104, 105]);
    });

    check('the node tells of itself', function () use ($client) {
        $node = $client->getNode();
        equal([$node->engine, $node->ready], ['embedded', true]);
        holds($node->counts['duels'] > 5 && $node->limits['CONTROL_MAX_WATCHERS'] === 64, 'counts and limits');
        holds($node->uptimeSeconds > 0 && $node->startedAt->getTimestamp() <= time() && $node->version !== '', 'the rest');
    });

    check('a duel that is not there', fn () => failure(DuelUnknown::class, fn () => $client->getDuel(404)));
    check('the hub stops in good order', fn () => $hub->stop());
};
