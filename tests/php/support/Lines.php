<?php

declare(strict_types=1);

/** A PSR-3 logger that keeps what it hears. */
final class Lines extends Psr\Log\AbstractLogger
{
    /** @var list<array{string, string, array<string, mixed>}> */
    public array $lines = [];

    public function log($level, $message, array $context = []): void
    {
        $this->lines[] = [$level, (string) $message, $context];
    }

    public function text(): string
    {
        return json_encode($this->lines);
    }
}
