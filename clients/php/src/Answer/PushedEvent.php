<?php

declare(strict_types=1);

namespace Duelhub\Answer;

/** What pushEvent answers: the event is stored. */
final class PushedEvent
{
    /**
     * @param bool $duplicate the event was pushed before with this idempotency key; this call stored nothing
     * @param int $connections how many connections of this node it was handed to; 0 does not mean lost
     * @param bool $declared openDuel was called for the duel; false: the hub's HTTP ticket API knows none of its players
     */
    public function __construct(
        public readonly Position $position,
        public readonly bool $duplicate,
        public readonly int $connections,
        public readonly bool $declared,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(
            Position::fromJson($json['position'] ?? []),
            $json['duplicate'] ?? false,
            $json['connections'] ?? 0,
            $json['declared'] ?? false,
        );
    }
}
