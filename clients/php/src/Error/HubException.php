<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** A call failed. What has no class of its own is a plain HubException: decide by its reason. */
class HubException extends \RuntimeException
{
    /** gRPC's numbers. getCode() is a number, because `new Exception($text, $failure->getCode())` wants one. */
    private const NUMBERS = [
        'canceled' => 1, 'unknown' => 2, 'invalid_argument' => 3, 'deadline_exceeded' => 4, 'not_found' => 5,
        'already_exists' => 6, 'permission_denied' => 7, 'resource_exhausted' => 8, 'failed_precondition' => 9,
        'aborted' => 10, 'out_of_range' => 11, 'unimplemented' => 12, 'internal' => 13, 'unavailable' => 14,
        'data_loss' => 15, 'unauthenticated' => 16,
    ];

    private const BY_REASON = [
        'DUEL_CLOSED' => DuelClosed::class,
        'DUEL_UNKNOWN' => DuelUnknown::class,
        'NOT_A_PARTICIPANT' => NotAParticipant::class,
        'IDEMPOTENCY_KEY_REUSED' => IdempotencyKeyReused::class,
    ];

    private const BY_STATUS = [
        'invalid_argument' => InvalidArgument::class,
        'unauthenticated' => Unauthenticated::class,
        'resource_exhausted' => LimitReached::class,
        'unavailable' => Unavailable::class,
        'deadline_exceeded' => DeadlineExceeded::class,
    ];

    /** What a proxy's answer means, which does not speak the hub's language; as the Connect protocol has it. */
    private const BY_HTTP_STATUS = [
        400 => 'internal', 401 => 'unauthenticated', 403 => 'permission_denied', 404 => 'unimplemented',
        429 => 'unavailable', 502 => 'unavailable', 503 => 'unavailable', 504 => 'unavailable',
    ];

    /**
     * @param string $status the code as a word, such as "failed_precondition"; getCode() is gRPC's number of it
     * @param string $reason the stable reason out of control.proto, such as "DUEL_CLOSED"; empty if the hub was not reached
     * @param string $requestId the hub's log lines about the call carry it; empty if nothing was sent
     * @param string|null $field the field at fault; null: it was not a field
     * @param bool $mayHaveTakenEffect the hub may have done what was asked, in this attempt or in one before
     * @param array<string, string> $metadata what else the hub says, such as `limit`
     */
    final public function __construct(
        string $message,
        public readonly string $status,
        public readonly string $reason = '',
        public readonly string $requestId = '',
        public readonly ?string $field = null,
        public readonly bool $mayHaveTakenEffect = false,
        public readonly array $metadata = [],
        ?\Throwable $previous = null,
    ) {
        parent::__construct($message, self::NUMBERS[$status] ?? self::NUMBERS['unknown'], $previous);
    }

    /** The same failure, of a call of which an earlier attempt may have taken effect. @internal */
    final public function afterUncertainAttempt(): static
    {
        return new static(
            $this->getMessage(), $this->status, $this->reason, $this->requestId, $this->field, true, $this->metadata, $this,
        );
    }

    /**
     * What the hub answered, or somebody on the way to it.
     *
     * @param mixed $error the decoded body; whatever it is
     * @internal
     */
    final public static function fromAnswer(mixed $error, int $httpStatus, string $requestId): self
    {
        // The hub always gives a reason.
        $info = is_array($error) ? self::detail($error, 'google.rpc.ErrorInfo') : [];
        if (($info['domain'] ?? '') !== 'duelhub') {
            return self::fromStranger($httpStatus, $requestId);
        }
        $metadata = $info['metadata'] ?? [];
        $reason = $info['reason'] ?? '';
        $class = self::BY_REASON[$reason] ?? self::BY_STATUS[$error['code']] ?? self::class;
        return new $class(
            $error['message'] ?? $reason,
            $error['code'],
            $reason,
            $metadata['request_id'] ?? $requestId,
            self::detail($error, 'google.rpc.BadRequest')['fieldViolations'][0]['field'] ?? null,
            $reason === 'INTERNAL' || ($metadata['may_have_taken_effect'] ?? '') === 'true',
            $metadata,
        );
    }

    private static function fromStranger(int $httpStatus, string $requestId): self
    {
        $status = self::BY_HTTP_STATUS[$httpStatus] ?? 'unknown';
        $class = self::BY_STATUS[$status] ?? self::class;
        $message = "the answer is not the hub's: HTTP status $httpStatus";
        return new $class($message, $status, requestId: $requestId, mayHaveTakenEffect: true);
    }

    private static function detail(array $error, string $type): array
    {
        foreach ($error['details'] ?? [] as $detail) {
            if (($detail['type'] ?? '') === $type) {
                return $detail['debug'] ?? [];
            }
        }
        return [];
    }
}
