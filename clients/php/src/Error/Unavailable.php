<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** The hub cannot be reached, is stopping, or lacks its engine. Repeat later with the same idempotency key. */
class Unavailable extends HubException
{
}
