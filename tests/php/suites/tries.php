<?php

// The try forms: whatever happens, a game goes on, and the logger knows why.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\Options;

return static function (string $binary): void {
    $hub = new Hub($binary);
    $lines = new Lines();
    $client = $hub->client(new Options(timeoutMs: 1000 * DEADLINE_S, logger: $lines));

    check('they answer what the plain forms answer', function () use ($client, $lines) {
        equal($client->tryOpenDuel('1', [1001])->created, true, 'created');
        holds($client->tryIssueTicket(1, 1001)->ticket !== '', 'a ticket');
        equal($client->tryPushEvent(1, idempotencyKey: 'key', transient: true)->position->seq, 1, 'seq');
        equal($client->tryPushEvent(1, idempotencyKey: 'key', transient: true)->duplicate, true, 'named arguments');
        equal($client->tryCloseDuel(1)->duplicate, false, 'duplicate');
        equal($lines->lines, [], 'nothing is logged');
    });

    check('the hub refuses', function () use ($client, $lines) {
        $lines->lines = [];
        equal($client->tryPushEvent(1, ['a' => 1]), null);
        [[$level, $message, $context]] = $lines->lines;
        equal([$level, $message], ['warning', 'duelhub: pushEvent failed: the duel is closed']);
        equal([$context['duel_id'], $context['reason'], strlen($context['request_id'])], [1, 'DUEL_CLOSED', 16]);
    });

    check('arguments of any kind', function () use ($client, $lines) {
        $bad = [
            fn () => $client->tryPushEvent(null),
            fn () => $client->tryPushEvent(1.5),
            fn () => $client->tryPushEvent([]),
            fn () => $client->tryPushEvent(2, 'text'),
            fn () => $client->tryPushEvent(2, ['a' => "\xff"]),
            fn () => $client->tryPushEvent(2, ['a' => NAN]),
            fn () => $client->tryPushEvent(2, views: [1001 => null]),
            fn () => $client->tryPushEvent(2, new class implements JsonSerializable {
                public function jsonSerialize(): mixed
                {
                    throw new LogicException('a fault of the game');
                }
            }),
            fn () => $client->tryIssueTicket("\xff", new stdClass()),
            fn () => $client->tryOpenDuel(2, [null]),
            fn () => $client->tryCloseDuel(2, 'finished'),
        ];
        $lines->lines = [];
        foreach ($bad as $call) {
            equal($call(), null);
        }
        equal(count($lines->lines), count($bad), 'lines');
    });

    check('a logger that fails, and none at all', function () use ($hub) {
        $log = tempnam(sys_get_temp_dir(), 'duelhub-php-');
        $before = ini_set('error_log', $log);
        $broken = new class extends Psr\Log\AbstractLogger {
            public function log($level, $message, array $context = []): void
            {
                throw new RuntimeException('the disk is full');
            }
        };
        foreach ([$broken, null] as $logger) {
            equal($hub->client(new Options(logger: $logger))->tryPushEvent(0), null);
        }
        ini_set('error_log', (string) $before);
        $said = file_get_contents($log);
        unlink($log);
        equal(substr_count($said, 'duelhub: pushEvent failed: duel_id must be from 1'), 2, $said);
        holds(!str_contains($said, Hub::TOKEN), 'the token is not logged');
    });

    check('the hub is away', function () use ($hub, $lines) {
        $hub->stop();
        $lines->lines = [];
        $client = new Client("http://$hub->control", Hub::TOKEN, new Options(logger: $lines));
        $took = milliseconds(function () use ($client) {
            equal([$client->tryOpenDuel(1), $client->tryIssueTicket(1, 1), $client->tryPushEvent(1), $client->tryCloseDuel(1)],
                [null, null, null, null]);
        });
        holds($took < 4 * 600, "four calls take $took ms");
        equal(array_column(array_column($lines->lines, 2), 'status'), array_fill(0, 4, 'unavailable'));
        equal($lines->lines[2][2]['may_have_taken_effect'], false, 'nothing was sent');
        holds(!str_contains($lines->text(), Hub::TOKEN), 'the token is not logged');
    });
};
