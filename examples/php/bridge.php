<?php

// Brings a game to the hub without a change of the game: polls its tables, pushes what has changed, closes what is over.
//
//     GAME_DB=sqlite:/path/to/game.sqlite php examples/php/bridge.php
//
// GAME_DB is a PDO name (with GAME_DB_USER and GAME_DB_PASSWORD for MySQL), POLL_MS the time between polls, 500 by default.
// CONTROL and CONTROL_TOKEN are as in duel.php.
//
// It goes on while the hub is away, and stops on SIGTERM. It remembers nothing: what it says again after a restart has the
// key from before, and the hub stores it once.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\DuelStatus;
use Duelhub\Error\HubException;
use Duelhub\Error\Unavailable;
use Duelhub\LastEvent;

require __DIR__ . '/../../clients/php/autoload.php';

const OVER = ['finished' => DuelStatus::Finished, 'cancelled' => DuelStatus::Cancelled];
const DUELS = 'SELECT d.id AS duel_id, d.status, d.updated_at,
        r.round_number AS last_round_number, r.closed_at AS last_round_closed_at
    FROM duels d LEFT JOIN duel_rounds r ON r.duel_id = d.id
        AND r.round_number = (SELECT MAX(round_number) FROM duel_rounds WHERE duel_id = d.id) WHERE ';

/** The duels that the hub holds open: those that ended while this was not running are among them. */
function open_at_hub(Client $hub): array
{
    $told = [];
    foreach ($hub->listDuels(DuelStatus::Open) as $duel) {
        $told[$duel->duelId] = '';
    }
    return $told;
}

function tell(Client $hub, array $duel, string $version): void
{
    // Some drivers return ids as text, and the hub wants a number in the payload.
    $payload = ['duel_id' => (int) $duel['duel_id']] + $duel + ['event_version' => $version];
    if (isset(OVER[$duel['status']])) {
        $hub->closeDuel($duel['duel_id'], OVER[$duel['status']], new LastEvent($payload));
    } else {
        $hub->pushEvent($duel['duel_id'], $payload, $version);
    }
}

/** One poll. `$told` has the last version that the hub was told, of each duel that is open there. */
function poll(PDO $game, Client $hub, array &$told): void
{
    $duels = $game->query(DUELS . "d.status NOT IN ('finished', 'cancelled')")->fetchAll();
    $one = $game->prepare(DUELS . 'd.id = ?');
    foreach (array_diff(array_keys($told), array_column($duels, 'duel_id')) as $id) {
        $one->execute([$id]);
        $ended = $one->fetch();
        if ($ended !== false) {
            $duels[] = $ended;
        } else {
            unset($told[$id]); // Not this game's.
        }
    }
    foreach ($duels as $duel) {
        $version = substr(hash('sha256', json_encode($duel)), 0, 16);
        if (($told[$duel['duel_id']] ?? '') === $version) {
            continue;
        }
        try {
            tell($hub, $duel, $version);
        } catch (Unavailable $away) {
            throw $away;
        } catch (HubException $refused) {
            // The hub is there, and refuses this one. It is not asked again, and the others go on.
            error_log("duel {$duel['duel_id']}: {$refused->getMessage()}, request $refused->requestId");
        }
        $told[$duel['duel_id']] = $version;
        if (isset(OVER[$duel['status']])) {
            unset($told[$duel['duel_id']]);
        }
    }
}

pcntl_async_signals(true);
$stopping = false;
pcntl_signal(SIGTERM, static function () use (&$stopping): void {
    $stopping = true;
});

$game = new PDO(getenv('GAME_DB'), getenv('GAME_DB_USER') ?: null, getenv('GAME_DB_PASSWORD') ?: null,
    [PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC]);
$hub = new Client(getenv('CONTROL') ?: 'http://127.0.0.1:50051', getenv('CONTROL_TOKEN') ?: '');
$told = null;
while (!$stopping) {
    try {
        $told ??= open_at_hub($hub);
        poll($game, $hub, $told);
    } catch (Unavailable $away) {
        error_log("the hub is away: {$away->getMessage()}");
    }
    usleep((int) (getenv('POLL_MS') ?: 500) * 1000);
}
