<?php

declare(strict_types=1);

namespace Duelhub;

/** The state of a duel. */
enum DuelStatus: string
{
    /** Also what a newer hub says that this package does not know. */
    case Unspecified = 'DUEL_STATUS_UNSPECIFIED';
    case Open = 'DUEL_STATUS_OPEN';
    case Finished = 'DUEL_STATUS_FINISHED';
    case Cancelled = 'DUEL_STATUS_CANCELLED';
}
