<?php

declare(strict_types=1);

namespace Duelhub\Error;

/** The duel is declared, and the user is not among its participants. */
final class NotAParticipant extends HubException
{
}
