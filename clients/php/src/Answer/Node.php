<?php

declare(strict_types=1);

namespace Duelhub\Answer;

/** What getNode answers. */
final class Node
{
    /**
     * @param string $engine "memory", "embedded" or "redis"
     * @param bool $ready as /readyz says
     * @param array<string, int> $counts by name: connections, duels, liveDuels, watchers, pushesInFlight
     * @param array<string, int> $limits by the variable's name
     */
    public function __construct(
        public readonly string $version,
        public readonly \DateTimeImmutable $startedAt,
        public readonly float $uptimeSeconds,
        public readonly string $engine,
        public readonly bool $ready,
        public readonly array $counts,
        public readonly array $limits,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self(
            $json['version'] ?? '',
            new \DateTimeImmutable($json['startedAt']),
            (float) ($json['uptime'] ?? 0),
            $json['engine'] ?? '',
            $json['ready'] ?? false,
            array_map(intval(...), $json['counts'] ?? []),
            array_map(intval(...), array_column($json['limits'] ?? [], 'value', 'name')),
        );
    }
}
