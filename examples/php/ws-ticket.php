<?php

// The game's ticket route, answered by the hub: the WebApp fetches a ticket here, and opens its WebSocket with it.
//
//     php -S 127.0.0.1:8000 examples/php/ws-ticket.php
//     curl -H 'X-User-Id: 1001' 'http://127.0.0.1:8000/api/duel/ws-ticket?duel_id=77'
//
// The game knows its users and its duels, so the hub needs no bot token and no OpenDuel. CONTROL and CONTROL_TOKEN are as in
// duel.php.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\Error\DuelClosed;
use Duelhub\Error\HubException;
use Duelhub\Error\InvalidArgument;
use Duelhub\Error\NotAParticipant;

require __DIR__ . '/../../clients/php/autoload.php';

/** Stands in for the game, which reads the user out of Telegram's initData. Anybody can write this header. */
function user_id(): ?string
{
    return $_SERVER['HTTP_X_USER_ID'] ?? null;
}

/** Stands in for the game, which looks into its table of duels. */
function may_enter(string $userId, string $duelId): bool
{
    return in_array($userId, ['1001', '1002'], true);
}

function answer(int $status, array $body): void
{
    http_response_code($status);
    header('Content-Type: application/json');
    header('Cache-Control: no-store');
    echo json_encode($body, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
}

/** @param string $error the WebApp knows these texts: with the Russian ones below it stops, with others it tries again */
function refuse(int $status, string $error, string $requestId = ''): void
{
    answer($status, ['success' => false, 'request_id' => $requestId, 'error' => $error]);
}

function ticket_route(Client $hub): void
{
    $user = user_id();
    $duel = is_string($_GET['duel_id'] ?? null) ? $_GET['duel_id'] : '';
    if ($user === null) {
        refuse(401, 'Не авторизован');
    } elseif (!may_enter($user, $duel)) {
        refuse(403, 'Доступ запрещён');
    } else {
        try {
            $ticket = $hub->issueTicket($duel, $user);
            $data = ['ticket' => $ticket->ticket, 'expires_at' => $ticket->expiresAt->getTimestamp()];
            answer(200, ['success' => true, 'request_id' => bin2hex(random_bytes(8)), 'data' => $data]);
        } catch (DuelClosed $closed) {
            refuse(409, 'Дуэль уже завершена', $closed->requestId);
        } catch (NotAParticipant $stranger) {
            refuse(403, 'Доступ запрещён', $stranger->requestId);
        } catch (InvalidArgument $bad) {
            refuse(400, $bad->getMessage(), $bad->requestId);
        } catch (HubException $failure) {
            error_log("no ticket: {$failure->getMessage()}, request $failure->requestId");
            header('Retry-After: 2');
            refuse(503, 'Сервис временно недоступен', $failure->requestId);
        }
    }
}

if (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) === '/api/duel/ws-ticket' && $_SERVER['REQUEST_METHOD'] === 'GET') {
    ticket_route(new Client(getenv('CONTROL') ?: 'http://127.0.0.1:50051', getenv('CONTROL_TOKEN') ?: ''));
} else {
    refuse(404, 'Не найдено');
}
