<?php

declare(strict_types=1);

namespace Duelhub;

/** The last event of a duel, pushed in one step with its end. The parameters are those of Client::pushEvent. */
final class LastEvent
{
    /**
     * @param array<string, mixed>|object $payload
     * @param array<int|string, array<string, mixed>|object> $views
     */
    public function __construct(
        public readonly array|object $payload = [],
        public readonly string $type = '',
        public readonly ?Audience $audience = null,
        public readonly array $views = [],
    ) {
    }
}
