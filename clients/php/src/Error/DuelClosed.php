<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** The duel is over. */
final class DuelClosed extends HubException
{
}
