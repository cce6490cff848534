<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** The hub has no such duel. */
final class DuelUnknown extends HubException
{
}
