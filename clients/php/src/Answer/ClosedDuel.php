<?php

declare(strict_types=1);

namespace Duelhub\Answer;

/** What closeDuel answers. */
final class ClosedDuel
{
    /**
     * @param Position $position the duel's last: that of `duel_closed`
     * @param bool $duplicate the duel was closed before with this status; this call stored nothing
     * @param int $connections how many connections of this node the end was handed to
     */
    public function __construct(
        public readonly Position $position,
        public readonly bool $duplicate,
        public readonly int $connections,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(
            Position::fromJson($json['position'] ?? []),
            $json['duplicate'] ?? false,
            $json['connections'] ?? 0,
        );
    }
}
