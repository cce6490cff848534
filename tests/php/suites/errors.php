<?php

// What goes wrong, as typed exceptions.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\DuelStatus;
use Duelhub\Error\DuelClosed;
use Duelhub\Error\DuelUnknown;
use Duelhub\Error\HubException;
use Duelhub\Error\IdempotencyKeyReused;
use Duelhub\Error\InvalidArgument;
use Duelhub\Error\LimitReached;
use Duelhub\Error\NotAParticipant;
use Duelhub\Error\Unauthenticated;
use Duelhub\Internal\Transport;
use Duelhub\Options;

return static function (string $binary): void {
    $hub = new Hub($binary, ['ENGINE_MAX_DUELS' => '3']);
    $client = $hub->client();
    $client->openDuel(1, [1001]);
    $client->closeDuel(2);

    $facts = static function (HubException $failure): array {
        holds(preg_match('/^[0-9a-f]{16}$/', $failure->requestId) === 1, "the request id $failure->requestId");
        return [$failure->getCode(), $failure->status, $failure->reason, $failure->field, $failure->mayHaveTakenEffect];
    };
    $cases = [
        'a wrong token' => [Unauthenticated::class, [16, 'unauthenticated', 'UNAUTHENTICATED', null, false],
            fn () => (new Client("http://$hub->control", 'another token'))->getDuel(1)],
        'a wrong token of a watcher' => [Unauthenticated::class, [16, 'unauthenticated', 'UNAUTHENTICATED', null, false],
            fn () => (new Client("http://$hub->control"))->watchDuels()->current()],
        'a bad id' => [InvalidArgument::class, [3, 'invalid_argument', 'INVALID_FIELD', 'user_id', false],
            fn () => $client->issueTicket(1, 'seven')],
        'a bad type' => [InvalidArgument::class, [3, 'invalid_argument', 'INVALID_FIELD', 'type', false],
            fn () => $client->pushEvent(1, type: 'connected')],
        'a list as a payload' => [InvalidArgument::class, [3, 'invalid_argument', 'INVALID_FIELD', 'payload_json', false],
            fn () => $client->pushEvent(1, ['a', 'b'])],
        'a closed duel' => [DuelClosed::class, [9, 'failed_precondition', 'DUEL_CLOSED', null, false],
            fn () => $client->pushEvent(2)],
        'closed another way' => [DuelClosed::class, [9, 'failed_precondition', 'DUEL_CLOSED', null, false],
            fn () => $client->closeDuel(2, DuelStatus::Cancelled)],
        'an unknown duel' => [DuelUnknown::class, [5, 'not_found', 'DUEL_UNKNOWN', null, false],
            fn () => $client->getDuel(404)],
        'a stranger' => [NotAParticipant::class, [7, 'permission_denied', 'NOT_A_PARTICIPANT', null, false],
            fn () => $client->issueTicket(1, 1002)],
        'a key used for another content' => [IdempotencyKeyReused::class,
            [6, 'already_exists', 'IDEMPOTENCY_KEY_REUSED', null, false],
            fn () => [$client->pushEvent(1, ['a' => 1], 'key'), $client->pushEvent(1, ['a' => 2], 'key')]],
        'too many duels' => [LimitReached::class, [8, 'resource_exhausted', 'LIMIT_REACHED', null, false],
            fn () => [$client->openDuel(3), $client->openDuel(4)]],
        'no such call' => [HubException::class, [12, 'unimplemented', 'UNKNOWN_METHOD', null, false],
            fn () => (new Transport("http://$hub->control", Hub::TOKEN, new Options()))->call('Nothing', [], true)],
    ];
    foreach ($cases as $name => [$class, $wanted, $call]) {
        check($name, fn () => equal($facts(failure($class, $call)), $wanted));
    }

    check('a limit has its name', function () use ($client) {
        equal(failure(LimitReached::class, fn () => $client->openDuel(4))->metadata['limit'], 'ENGINE_MAX_DUELS');
    });

    check('text that is no UTF-8 is an argument error, and is not sent', function () use ($client) {
        foreach (['payload_json' => ['a' => "\xff"], 'views' => []] as $field => $payload) {
            $push = fn () => $client->pushEvent(1, $payload, views: [1001 => ['b' => "\xff"]]);
            $failure = failure(InvalidArgument::class, $push);
            equal([$failure->field, $failure->requestId, $failure->reason], [$field, '', 'INVALID_FIELD']);
        }
        failure(InvalidArgument::class, fn () => $client->pushEvent(1, idempotencyKey: "\xff"));
    });

    check('what is not the hub says so', function () use ($hub) {
        $failure = failure(HubException::class, fn () => (new Client("http://$hub->edge"))->getNode());
        equal($failure->getMessage(), "the answer is not the hub's: HTTP status 404");
    });

    check('urls and tokens that cannot be', function () {
        failure(InvalidArgumentException::class, fn () => new Client('127.0.0.1:50051'));
        failure(InvalidArgumentException::class, fn () => new Client(token: "a\nb"));
        failure(InvalidArgumentException::class, fn () => new Options(attempts: 0));
    });

    check('the token is not shown', function () use ($client) {
        holds(!str_contains(print_r($client, true), Hub::TOKEN), 'print_r');
    });
};
