<?php

declare(strict_types=1);

namespace Duelhub;

/** What a user may do in a duel. */
enum Role: string
{
    /** Also what a newer hub says that this package does not know. */
    case Unspecified = 'ROLE_UNSPECIFIED';
    case Player = 'ROLE_PLAYER';
    case Spectator = 'ROLE_SPECTATOR';
}
