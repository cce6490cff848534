<?php

declare(strict_types=1);

namespace Duelhub\Answer;

use Duelhub\DuelStatus;
use Duelhub\Participant;

/** A duel in its present state, as getDuel answers. */
final class Duel
{
    /**
     * @param Position $position the position of the last event
     * @param int $oldestSeq the oldest event that the log still holds; 0: the log is empty
     * @param bool $declared openDuel was called for it
     * @param list<Participant> $participants empty if the duel was not declared
     * @param list<OnlineUser> $online on all nodes: at most 128, players before spectators
     * @param int $connections how many connections this node has in the duel
     * @param \DateTimeImmutable|null $updatedAt when the last event was stored; null: there is none
     */
    public function __construct(
        public readonly int $duelId,
        public readonly DuelStatus $status,
        public readonly Position $position,
        public readonly int $oldestSeq,
        public readonly bool $declared,
        public readonly array $participants,
        public readonly array $online,
        public readonly int $connections,
        public readonly \DateTimeImmutable $createdAt,
        public readonly ?\DateTimeImmutable $updatedAt,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(
            (int) $json['duelId'],
            DuelStatus::tryFrom($json['status']) ?? DuelStatus::Unspecified,
            Position::fromJson($json['position'] ?? []),
            (int) ($json['oldestSeq'] ?? 0),
            $json['declared'] ?? false,
            array_map(self::participant(...), $json['participants'] ?? []),
            array_map(OnlineUser::fromJson(...), $json['online'] ?? []),
            $json['connections'] ?? 0,
            new \DateTimeImmutable($json['createdAt']),
            isset($json['updatedAt']) ? new \DateTimeImmutable($json['updatedAt']) : null,
        );
    }

    private static function participant(array $json): Participant
    {
        return new Participant((int) $json['userId'], (int) $json['telegramId']);
    }
}
