<?php

declare(strict_types=1);

namespace Duelhub;

/** Who receives an event. Without an audience it is everybody in the duel. */
final class Audience
{
    /** @param array<string, mixed> $json the audience as the hub reads it */
    private function __construct(public readonly array $json)
    {
    }

    /** All players and no spectator. */
    public static function players(): self
    {
        return new self(['players' => true]);
    }

    /** These users and nobody else: 1 to 64. */
    public static function only(int|string ...$userIds): self
    {
        return new self(['only' => ['user_ids' => array_values($userIds)]]);
    }

    /** Everybody but these users: 1 to 64. */
    public static function except(int|string ...$userIds): self
    {
        return new self(['except' => ['user_ids' => array_values($userIds)]]);
    }
}
