<?php

declare(strict_types=1);

namespace Duelhub\Answer;

use Duelhub\Role;

/** A user who is online in a duel. */
final class OnlineUser
{
    /**
     * @param \DateTimeImmutable $since without a gap longer than the grace period
     * @param int $connections how many connections the user has on this node
     * @param int $ackedSeq the highest seq that the user acked; 0: none
     */
    public function __construct(
        public readonly int $userId,
        public readonly Role $role,
        public readonly \DateTimeImmutable $since,
        public readonly int $connections,
        public readonly int $ackedSeq,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(
            (int) $json['userId'],
            Role::tryFrom($json['role'] ?? '') ?? Role::Unspecified,
            new \DateTimeImmutable($json['since']),
            $json['connections'] ?? 0,
            (int) ($json['ackedSeq'] ?? 0),
        );
    }
}
