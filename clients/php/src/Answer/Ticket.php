<?php

declare(strict_types=1);

namespace Duelhub\Answer;

/** What issueTicket answers. */
final class Ticket
{
    /**
     * @param string $ticket the WebApp opens its WebSocket with it; a secret until it is used: keep it out of logs
     * @param \DateTimeImmutable $expiresAt the ticket is refused from then on
     * @param string $jti the ticket's id, for revokeTicket; not a secret
     */
    public function __construct(
        public readonly string $ticket,
        public readonly \DateTimeImmutable $expiresAt,
        public readonly string $jti,
    ) {
    }

    /** @internal */
    public static function fromJson(array $json): self
    {
        return new self($json['ticket'], new \DateTimeImmutable($json['expiresAt']), $json['jti']);
    }
}
