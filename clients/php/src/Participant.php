<?php

declare(strict_types=1);

namespace Duelhub;

/** A user who takes part in a duel. */
final class Participant
{
    /** @param int|string|null $telegramId the user's id at Telegram; null: the same as $userId */
    public function __construct(
        public readonly int|string $userId,
        public readonly int|string|null $telegramId = null,
    ) {
    }
}
