<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** A limit of the hub is reached: `metadata['limit']` names it. Try later, not at once. */
final class LimitReached extends HubException
{
}
