<?php

// Stands in for the game that exists: its configuration, its tables, its tickets, and how it tells others of a change.
// GAME is its directory. It has config/app.env, game.sqlite and the signal files of the old process.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\DuelStatus;
use Duelhub\LastEvent;
use Duelhub\Options;

require __DIR__ . '/../../../clients/php/autoload.php';

const OVER = ['finished', 'cancelled'];

/** As the game reads it: one line that PHP does not take, and nothing of it is left. */
function config(string $name): string
{
    static $all = null;
    $all ??= @parse_ini_file(getenv('GAME') . '/config/app.env');
    if ($all === false) {
        throw new RuntimeException('the game has no configuration');
    }
    return (string) ($all[$name] ?? '');
}

function database(): PDO
{
    static $database = null;
    if ($database === null) {
        $database = new PDO('sqlite:' . getenv('GAME') . '/game.sqlite', options: [PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC]);
        $database->exec('PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000');
        $database->exec('CREATE TABLE IF NOT EXISTS duels (id INTEGER PRIMARY KEY, status TEXT, initiator_user_id INTEGER,
            opponent_user_id INTEGER, round_is_over INTEGER DEFAULT 0, updated_at TEXT);
            CREATE TABLE IF NOT EXISTS duel_rounds (duel_id INTEGER, round_number INTEGER, closed_at TEXT)');
    }
    return $database;
}

function query(string $sql, mixed ...$values): array
{
    $statement = database()->prepare($sql);
    $statement->execute($values);
    return $statement->fetchAll();
}

/** What the old process says of a duel, but for `event_version`. Null: there is no such duel. */
function snapshot(int $duelId): ?array
{
    $duel = query('SELECT id AS duel_id, status, updated_at FROM duels WHERE id = ?', $duelId)[0] ?? null;
    if ($duel === null) {
        return null;
    }
    $last = query('SELECT * FROM duel_rounds WHERE duel_id = ? ORDER BY round_number DESC LIMIT 1', $duelId)[0] ?? null;
    return $duel + ['last_round_number' => $last['round_number'] ?? null, 'last_round_closed_at' => $last['closed_at'] ?? ''];
}

/** The one place that tells of a change: by a signal file to the old process, and by a push to the hub. */
function notify_duel_realtime(int $duelId): void
{
    $version = sprintf('%.6f', microtime(true));
    file_put_contents(getenv('GAME') . "/signals/duel_$duelId.signal", $version, LOCK_EX);
    if (config('DUELHUB_PUSH') !== '1') {
        return;
    }
    $payload = snapshot($duelId) + ['event_version' => $version];
    if (in_array($payload['status'], OVER, true)) {
        hub()->tryCloseDuel($duelId, DuelStatus::from(strtoupper("duel_status_{$payload['status']}")), new LastEvent($payload));
    } else {
        hub()->tryPushEvent($duelId, $payload);
    }
}

function hub(): Client
{
    static $hub = null;
    // Longer than a game should wait: on a busy machine the test would see PHP's own tickets in place of the hub's.
    return $hub ??= new Client(config('DUELHUB_URL'), config('DUELHUB_TOKEN'), new Options(timeoutMs: 3000));
}

/** The hub's ticket if nginx chose so and the hub is there, else the game's own. */
function ticket(int $duelId, int $userId): string
{
    $chosen = ($_GET['ticket_by'] ?? '') === 'duelhub';
    $ticket = $chosen ? hub()->tryIssueTicket($duelId, $userId) : null;
    return $ticket?->ticket ?? own_ticket($duelId, $userId);
}

/** The old process's form: JSON in base64url, a dot, its HMAC. */
function own_ticket(int $duelId, int $userId): string
{
    $claims = ['duel_id' => $duelId, 'user_id' => $userId, 'iat' => time(), 'exp' => time() + 300, 'jti' => bin2hex(random_bytes(8))];
    $json = json_encode($claims);
    $encoded = rtrim(strtr(base64_encode($json), '+/', '-_'), '=');
    return $encoded . '.' . hash_hmac('sha256', $json, config('WEBSOCKET_TICKET_SECRET'));
}

/** The claims of a ticket of that form; null for any other. */
function claims(string $ticket): ?array
{
    [$encoded, $signature] = explode('.', $ticket, 2) + ['', ''];
    $json = base64_decode(strtr($encoded, '-_', '+/'), true) ?: '';
    $good = hash_equals(hash_hmac('sha256', $json, config('WEBSOCKET_TICKET_SECRET')), $signature);
    return $good ? json_decode($json, true) : null;
}

/** The Telegram user of the request, who is the game's user as well; null: not proven. */
function telegram_user(): ?int
{
    parse_str($_SERVER['HTTP_X_TELEGRAM_INIT_DATA'] ?? '', $fields);
    $hash = $fields['hash'] ?? '';
    unset($fields['hash']);
    ksort($fields);
    $lines = implode("\n", array_map(static fn ($name) => "$name=$fields[$name]", array_keys($fields)));
    $key = hash_hmac('sha256', config('TELEGRAM_BOT_TOKEN'), 'WebAppData', true);
    $fresh = (int) ($fields['auth_date'] ?? 0) > time() - max(3600, (int) (config('INIT_DATA_TTL_SECONDS') ?: 86400));
    $good = $fresh && hash_equals(hash_hmac('sha256', $lines, $key), $hash);
    return $good ? json_decode($fields['user'], true)['id'] : null;
}
