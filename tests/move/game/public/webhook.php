<?php

// Where Telegram sends the bot's updates.

declare(strict_types=1);

require __DIR__ . '/../game.php';

if ($_SERVER['REQUEST_METHOD'] !== 'POST' || config('TELEGRAM_BOT_TOKEN') === '') {
    http_response_code(500);
    exit;
}
echo 'ok';
