<?php

// The game's API, as far as a duel needs it. Behind nginx and php-fpm, as the game's is.

declare(strict_types=1);

require __DIR__ . '/../game.php';

function respond(int $status, array $body): never
{
    http_response_code($status);
    header('Content-Type: application/json');
    exit(json_encode(['success' => $status === 200] + $body, JSON_UNESCAPED_UNICODE));
}

/** The header takes one origin. A comma list in WEBAPP_URL would be no origin at all. */
function allow_the_other_origin(): void
{
    header('Access-Control-Allow-Origin: ' . config('WEBAPP_URL'));
    header('Access-Control-Allow-Headers: X-Telegram-Init-Data, Content-Type');
    if ($_SERVER['REQUEST_METHOD'] === 'OPTIONS') {
        http_response_code(204);
        exit;
    }
}

function the_duel_of(int $user, int $duelId): array
{
    $duel = query('SELECT * FROM duels WHERE id = ?', $duelId)[0] ?? respond(404, ['error' => 'Дуэль не найдена']);
    if (!in_array($user, [$duel['initiator_user_id'], $duel['opponent_user_id']], true)) {
        respond(403, ['error' => 'Доступ запрещён']);
    }
    return $duel;
}

/** A round ends inside of this GET, in whichever player's comes first: one of the places that change a duel and are easily missed. */
function show(array $duel): never
{
    $ends = query('UPDATE duels SET round_is_over = 0 WHERE id = ? AND round_is_over = 1 RETURNING id', $duel['id']);
    if ($ends !== []) {
        query('UPDATE duel_rounds SET closed_at = ? WHERE duel_id = ? AND closed_at IS NULL', date('c'), $duel['id']);
        notify_duel_realtime($duel['id']);
    }
    respond(200, ['data' => snapshot($duel['id'])]);
}

function change(array $duel, string $what): never
{
    match ($what) {
        'round' => query('INSERT INTO duel_rounds SELECT ?, 1 + COUNT(*), NULL FROM duel_rounds WHERE duel_id = ?', $duel['id'], $duel['id']),
        // Nobody is told: the round's time is up, and the next GET will see it.
        'time_up' => query('UPDATE duels SET round_is_over = 1 WHERE id = ?', $duel['id']),
        'finish' => query("UPDATE duels SET status = 'finished', updated_at = ? WHERE id = ?", date('c'), $duel['id']),
    };
    if ($what !== 'time_up') {
        notify_duel_realtime($duel['id']);
    }
    respond(200, ['data' => snapshot($duel['id'])]);
}

function ticket_route(int $user, int $duelId): never
{
    $duel = the_duel_of($user, $duelId);
    if (in_array($duel['status'], ['finished', 'cancelled'], true)) {
        respond(409, ['error' => 'Дуэль уже завершена']);
    }
    respond(200, ['data' => ['ticket' => ticket($duelId, $user), 'expires_at' => time() + 300]]);
}

try {
    allow_the_other_origin();
    $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    header('X-Share: ' . ($_GET['ticket_by'] ?? ''));
    if ($path === '/api/ping') {
        respond(200, []);
    }
    $user = telegram_user() ?? respond(401, ['error' => 'Не авторизован']);
    if ($path === '/api/duel/ws-ticket') {
        ticket_route($user, (int) ($_GET['duel_id'] ?? 0));
    }
    if ($path === '/api/duel/new') {
        query("INSERT INTO duels (status, initiator_user_id, opponent_user_id) VALUES ('in_progress', ?, ?)", $user, (int) $_GET['opponent']);
        respond(200, ['data' => snapshot((int) database()->lastInsertId())]);
    }
    if (preg_match('~^/api/duel/(\d+)(?:/(round|time_up|finish))?$~', $path, $found)) {
        $duel = the_duel_of($user, (int) $found[1]);
        isset($found[2]) ? change($duel, $found[2]) : show($duel);
    }
    respond(404, ['error' => 'Не найдено']);
} catch (Throwable $error) {
    error_log((string) $error);
    respond(500, ['error' => 'Ошибка']);
}
