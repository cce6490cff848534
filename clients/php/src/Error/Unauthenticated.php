<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** The token is missing or wrong. */
final class Unauthenticated extends HubException
{
}
