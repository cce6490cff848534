<?php

declare(strict_types=1);

namespace Duelhub\Answer;

use Duelhub\DuelStatus;

/** A duel in the list of listDuels. */
final class DuelSummary
{
    /** @param int $connections how many connections this node has in the duel */
    public function __construct(
        public readonly int $duelId,
        public readonly DuelStatus $status,
        public readonly Position $position,
        public readonly int $connections,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(
            (int) ($json['duelId'] ?? 0),
            DuelStatus::tryFrom($json['status'] ?? '') ?? DuelStatus::Unspecified,
            Position::fromJson($json['position'] ?? []),
            $json['connections'] ?? 0,
        );
    }
}
