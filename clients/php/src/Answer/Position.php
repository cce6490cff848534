<?php

declare(strict_types=1);

namespace Duelhub\Answer;

/** Where an event stands in its duel. Compare positions of one epoch only. */
final class Position
{
    /** @param int $seq counts the events from 1; 0: before the first */
    public function __construct(public readonly string $epoch, public readonly int $seq)
    {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self($json['epoch'] ?? '', (int) ($json['seq'] ?? 0));
    }
}
