<?php

declare(strict_types=1);

/** Stands between a client and the hub, in a process of its own, and does to connections what `relay.php` says. */
final class Relay
{
    public readonly string $address;
    private readonly Process $process;

    /** @param string ...$fates of the first connection, the second and so on; the last one holds for all that follow */
    public function __construct(string $upstream, string ...$fates)
    {
        $this->process = new Process([PHP_BINARY, __DIR__ . '/relay_process.php', $upstream, ...$fates]);
        $this->address = $this->process->says('/listening on (\S+)\n/')[1];
    }

    /** How many connections have come. */
    public function connections(): int
    {
        return substr_count($this->process->said(), "connection\n");
    }
}
