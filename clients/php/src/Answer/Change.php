<?php

declare(strict_types=1);

namespace Duelhub\Answer;

use Duelhub\DuelStatus;
use Duelhub\Role;

/** What happened in a duel, as watchDuels reports it. What does not belong to its kind is null. */
final class Change
{
    /**
     * @param string $kind opened, closed, userOnline, userOffline, acked, sessionEnded, or synced: the state at the start is
     *     complete. A newer hub may have more
     * @param int $duelId 0 in synced
     * @param bool $initial part of the state at the start, not a change
     * @param Position|null $position opened, closed: the duel's last
     * @param DuelStatus|null $status closed: finished or cancelled
     * @param int|null $userId userOnline, userOffline, acked, sessionEnded
     * @param Role|null $role userOnline
     * @param \DateTimeImmutable|null $since userOnline
     * @param string|null $reason userOffline: a name out of OfflineReason in control.proto
     * @param int|null $seq acked: the highest
     */
    public function __construct(
        public readonly string $kind,
        public readonly int $duelId,
        public readonly bool $initial,
        public readonly ?Position $position,
        public readonly ?DuelStatus $status,
        public readonly ?int $userId,
        public readonly ?Role $role,
        public readonly ?\DateTimeImmutable $since,
        public readonly ?string $reason,
        public readonly ?int $seq,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        // The change is the only object in the message, under the name of its kind.
        $changes = array_filter($json, is_array(...));
        $kind = (string) array_key_first($changes);
        $change = $changes[$kind] ?? [];
        return new self(
            $kind,
            (int) ($json['duelId'] ?? 0),
            $json['initial'] ?? false,
            isset($change['position']) ? Position::fromJson($change['position']) : null,
            isset($change['status']) ? DuelStatus::tryFrom($change['status']) ?? DuelStatus::Unspecified : null,
            isset($change['userId']) ? (int) $change['userId'] : null,
            isset($change['role']) ? Role::tryFrom($change['role']) ?? Role::Unspecified : null,
            isset($change['since']) ? new \DateTimeImmutable($change['since']) : null,
            $change['reason'] ?? null,
            isset($change['seq']) ? (int) $change['seq'] : null,
        );
    }
}
