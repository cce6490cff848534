<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** A field is malformed, too large or out of range: `field` names it. */
final class InvalidArgument extends HubException
{
}
