<?php

declare(strict_types=1);

namespace Duelhub\Internal;

use Duelhub\Error\InvalidArgument;

/** What goes to the hub, as JSON. @internal */
final class Json
{
    private const FLAGS = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;

    /** A payload as text. PHP writes `[]` for an empty array, where the hub wants an object. */
    public static function payload(array|object $payload, string $field = 'payload_json'): string
    {
        return self::encode($payload === [] ? new \stdClass() : $payload, $field);
    }

    /** A request. An empty one is an object, too. */
    public static function request(array $request): string
    {
        return self::encode((object) $request, null);
    }

    private static function encode(array|object $value, ?string $field): string
    {
        try {
            return json_encode($value, self::FLAGS);
        } catch (\JsonException $failure) {
            $what = $field ?? 'the request';
            throw new InvalidArgument(
                "$what cannot be written as JSON: {$failure->getMessage()}",
                'invalid_argument',
                'INVALID_FIELD',
                field: $field,
                previous: $failure,
            );
        }
    }
}
