<?php

declare(strict_types=1);

namespace Duelhub;

use Psr\Log\LoggerInterface;

/** How a Client calls. Everything has a default that suits a hub on the same machine. */
final class Options
{
    /**
     * @param int $timeoutMs the longest that one call takes, all its attempts and pauses together
     * @param int $connectTimeoutMs the longest that one attempt waits for a connection
     * @param int $attempts how often a call is tried: 1 never repeats
     * @param LoggerInterface|null $logger hears why a try form failed; null: error_log(). The package psr/log need not be
     *     there: PHP looks for the type only when a logger is given
     * @param string|null $caFile PEM file with the authority of the hub's certificate; null: the system's authorities
     * @param string|null $certFile PEM file with this backend's certificate, for mutual TLS
     * @param string|null $keyFile PEM file with its private key
     */
    public function __construct(
        public readonly int $timeoutMs = 300,
        public readonly int $connectTimeoutMs = 100,
        public readonly int $attempts = 3,
        public readonly ?LoggerInterface $logger = null,
        public readonly ?string $caFile = null,
        public readonly ?string $certFile = null,
        public readonly ?string $keyFile = null,
    ) {
        if (min($timeoutMs, $connectTimeoutMs, $attempts) < 1) {
            throw new \InvalidArgumentException('timeoutMs, connectTimeoutMs and attempts must be at least 1');
        }
    }
}
