<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** There was no answer in time. Repeat later with the same idempotency key. */
final class DeadlineExceeded extends Unavailable
{
}
