<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** The idempotency key was used for another content. */
final class IdempotencyKeyReused extends HubException
{
}
