<?php

// A backend, whole: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.
//
//     php examples/php/duel.php
//
// CONTROL is the hub's control plane, http://127.0.0.1:50051 by default, and CONTROL_TOKEN its token if it wants one. It prints
// a ticket. A player opens ws://127.0.0.1:8090/ws?ticket=<ticket> with it.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\LastEvent;

require __DIR__ . '/../../clients/php/autoload.php';

$hub = new Client(getenv('CONTROL') ?: 'http://127.0.0.1:50051', getenv('CONTROL_TOKEN') ?: '');

// A duel's id is the backend's own, and is never used again: here the process's, which will do for trying out.
$duel = getmypid();
$opened = $hub->openDuel($duel, [1001, 1002]);
echo "duel $duel is open, created just now: ", json_encode($opened->created), "\n";

// The ticket admits this user to this duel, once.
echo 'ticket of user 1001: ', $hub->issueTicket($duel, 1001)->ticket, "\n";

// With an idempotency key a push may be repeated after any failure, until there is an answer: it takes effect once.
foreach ([1, 2] as $_) {
    $pushed = $hub->pushEvent($duel, ['text' => 'Which planet is the third?'], 'question-1', type: 'question');
    echo "event {$pushed->position->seq} is stored, a duplicate: ", json_encode($pushed->duplicate), "\n";
}

// A watch begins with the present state, ends that with `synced`, and then tells what changes.
foreach ($hub->watchDuels([$duel]) as $change) {
    echo "watched: $change->kind\n";
    if ($change->kind === 'synced') {
        $hub->closeDuel($duel, lastEvent: new LastEvent(['winner' => 1001]));
    }
    if ($change->kind === 'closed') {
        break;
    }
}
