<?php

declare(strict_types=1);

namespace Duelhub\Answer;

/** What openDuel answers. */
final class OpenedDuel
{
    /** @param bool $created this call created the duel, or began it anew */
    public function __construct(public readonly Position $position, public readonly bool $created)
    {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(Position::fromJson($json['position'] ?? []), $json['created'] ?? false);
    }
}
