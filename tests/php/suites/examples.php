<?php

// The programs of examples/php, against a hub.

declare(strict_types=1);

use Duelhub\DuelStatus;

/** A port that is free just now. */
function free_port(): int
{
    $socket = stream_socket_server('tcp://127.0.0.1:0');
    return (int) substr(strrchr(stream_socket_get_name($socket, false), ':'), 1);
}

/** The tables of the game, as far as the bridge reads them. */
function game_tables(string $file): PDO
{
    $game = new PDO("sqlite:$file");
    $game->exec('CREATE TABLE duels (id INTEGER PRIMARY KEY, status TEXT, updated_at TEXT)');
    $game->exec('CREATE TABLE duel_rounds (id INTEGER PRIMARY KEY, duel_id INTEGER, round_number INTEGER, closed_at TEXT)');
    return $game;
}

return static function (string $binary): void {
    $hub = new Hub($binary);
    $client = $hub->client();
    $examples = realpath(__DIR__ . '/../../../examples/php');
    $variables = ['CONTROL' => "http://$hub->control", 'CONTROL_TOKEN' => Hub::TOKEN];
    $wait = static fn (int $duel, string $what, Closure $holds) => until(static function () use ($client, $duel, $holds) {
        foreach ($client->listDuels() as $summary) {
            if ($summary->duelId === $duel) {
                return $holds($summary);
            }
        }
    }, $what);

    check('the first lines of the README', function () use ($client, $hub, $variables) {
        $readme = file_get_contents(__DIR__ . '/../../../clients/php/README.md');
        equal(preg_match('/^```php\n(.*?)^```/ms', $readme, $block), 1, 'a block of PHP');
        $places = ["'vendor/autoload.php'" => "'" . __DIR__ . "/../../../clients/php/autoload.php'",
            'http://127.0.0.1:50051' => "http://$hub->control"];
        $lines = new Process([PHP_BINARY, '-r', strtr($block[1], $places)], $variables);
        equal([$lines->wait(), $lines->said()], [0, '']);
        equal($client->getDuel(77)->position->seq, 1, 'seq');
    });

    check('duel.php', function () use ($examples, $variables) {
        $duel = new Process([PHP_BINARY, "$examples/duel.php"], $variables);
        equal($duel->wait(), 0, $duel->said());
        foreach (['event 1 is stored, a duplicate: false', 'event 1 is stored, a duplicate: true', 'watched: closed'] as $line) {
            holds(str_contains($duel->said(), $line), $duel->said());
        }
    });

    check('ws-ticket.php', function () use ($examples, $variables, $client, $hub) {
        $port = free_port();
        $server = new Process([PHP_BINARY, '-S', "127.0.0.1:$port", "$examples/ws-ticket.php"], $variables);
        $get = static function (string $query, string ...$headers) use ($port): array {
            $curl = curl_init("http://127.0.0.1:$port/api/duel/ws-ticket$query");
            curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_HTTPHEADER => $headers]);
            $body = curl_exec($curl);
            return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), json_decode((string) $body, true)];
        };
        until(static fn () => $get('')[0] !== 0, 'PHP serves');
        [$status, $body] = $get('?duel_id=77', 'X-User-Id: 1001');
        equal([$status, array_keys($body), array_keys($body['data'])],
            [200, ['success', 'request_id', 'data'], ['ticket', 'expires_at']]);
        holds(abs($body['data']['expires_at'] - time() - 300) < 10, 'expires_at');
        equal((new Player($hub->edge, $body['data']['ticket']))->next('connected')['user_id'], 1001);
        $client->closeDuel(78);
        $refused = [
            '?duel_id=77' => [401, 'Не авторизован', ''],
            '?duel_id=7' => [403, 'Доступ запрещён', '1003'],
            '?duel_id=78' => [409, 'Дуэль уже завершена', '1001'],
            '?duel_id=0' => [400, 'duel_id must be from 1 to 9007199254740991', '1001'],
        ];
        foreach ($refused as $query => [$status, $error, $user]) {
            [$answered, $body] = $get($query, ...($user === '' ? [] : ["X-User-Id: $user"]));
            equal([$answered, $body['success'], $body['error']], [$status, false, $error], $query);
        }
        holds(preg_match('/PHP (Warning|Notice|Deprecated|Fatal)/', $server->said()) === 0, $server->said());
    });

    check('bridge.php', function () use ($examples, $variables, $client, $hub, $wait) {
        $directory = new_directory();
        $game = game_tables("$directory/game.sqlite");
        $game->exec("INSERT INTO duels VALUES (501, 'active', '2026-01-01 10:00:00'), (502, 'finished', '2026-01-01 09:00:00')");
        $client->openDuel(502); // It ended while the bridge was not running.
        $client->openDuel(503); // Another backend's.
        $start = static fn () => new Process([PHP_BINARY, "$examples/bridge.php"],
            $variables + ['GAME_DB' => "sqlite:$directory/game.sqlite", 'POLL_MS' => '20']);
        $bridge = $start();
        $wait(501, 'the first state', static fn ($duel) => $duel->position->seq === 1);
        $wait(502, 'the duel that ended before', static fn ($duel) => $duel->status === DuelStatus::Finished);

        $player = new Player($hub->edge, $client->issueTicket(501, 1001)->ticket);
        equal($player->next('duel_update')['payload']['status'], 'active');
        $game->exec("INSERT INTO duel_rounds VALUES (1, 501, 1, '2026-01-01 10:00:30')");
        $payload = $player->next('duel_update')['payload'];
        $version = $payload['event_version'];
        holds(preg_match('/^[0-9a-f]{16}$/', $version) === 1, 'a version');
        equal($payload, ['duel_id' => 501, 'status' => 'active', 'updated_at' => '2026-01-01 10:00:00',
            'last_round_number' => 1, 'last_round_closed_at' => '2026-01-01 10:00:30', 'event_version' => $version]);

        // A bridge that is started again says nothing twice.
        equal($bridge->terminate(), 0, $bridge->said());
        $bridge = $start();
        $game->exec("INSERT INTO duels VALUES (504, 'waiting', NULL)");
        $wait(504, 'a new duel', static fn ($duel) => $duel->position->seq === 1);
        equal($client->getDuel(501)->position->seq, 2, 'seq');

        // What changes while the hub is away is told when it is back.
        $hub->stop();
        $game->exec("UPDATE duels SET status = 'cancelled' WHERE id = 501");
        $bridge->says('/the hub is away/');
        $hub->startAgain();
        $wait(501, 'the end', static fn ($duel) => $duel->status === DuelStatus::Cancelled);
        equal($client->getDuel(501)->position->seq, 4, 'the last event, and the end');
        equal($client->getDuel(503)->status, DuelStatus::Open, 'the duel of another backend');
        equal($bridge->terminate(), 0, $bridge->said());
        remove($directory);
    });
    $hub->stop();
};
