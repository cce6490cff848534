<?php

// Deadlines, attempts, kept connections, restarts.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\Error\DeadlineExceeded;
use Duelhub\Error\Unavailable;
use Duelhub\Options;

return static function (string $binary): void {
    $hub = new Hub($binary);
    $patient = new Options(timeoutMs: 1000 * DEADLINE_S);
    $away = static fn (Relay $relay, Options $options) => new Client("http://$relay->address", Hub::TOKEN, $options);

    check('a hub that never answers takes the deadline and no longer', function () use ($hub, $away) {
        $relay = new Relay($hub->control, 'silent');
        $took = milliseconds(function () use ($away, $relay) {
            $push = fn () => $away($relay, new Options())->pushEvent(1);
            equal(failure(DeadlineExceeded::class, $push)->mayHaveTakenEffect, true, 'may have taken effect');
        });
        // A busy machine takes longer than 300 ms, and not twice as long.
        holds($took > 200 && $took < 600, "it takes $took ms");
        until(static fn () => $relay->connections() === 3, 'three attempts');
        $client = $away($relay, new Options(timeoutMs: 100, attempts: 1));
        $took = milliseconds(fn () => failure(DeadlineExceeded::class, fn () => $client->watchDuels()->current()));
        holds($took < 600, "a watch takes $took ms");
    });

    check('a connection that is never made', function () {
        // TEST-NET-1 of RFC 5737: nobody answers there. A machine without a route to it says so at once.
        $client = new Client('http://192.0.2.1:50051', options: new Options());
        $took = milliseconds(function () use ($client) {
            equal(failure(Unavailable::class, fn () => $client->pushEvent(1))->mayHaveTakenEffect, false, 'effect');
        });
        holds($took < 600, "it takes $took ms");
    });

    $attempts = ['reset' => false, 'lost' => true, 'silent' => false];
    foreach ($attempts as $fate => $stored) {
        check("the first attempt is $fate", function () use ($hub, $away, $fate, $stored) {
            $relay = new Relay($hub->control, $fate, 'pass');
            // Silence takes half of the time.
            $client = $away($relay, new Options(timeoutMs: $fate === 'silent' ? 1000 : 1000 * DEADLINE_S));
            $duel = random_int(100, 1 << 40);
            $pushed = $client->pushEvent($duel, ['a' => 1]);
            equal([$pushed->duplicate, $pushed->position->seq], [$stored, 1]);
            equal($hub->client()->getDuel($duel)->position->seq, 1, 'stored once');
            equal($relay->connections(), 2, 'connections');
        });
    }

    check('attempts are bounded, and the failure remembers the first one', function () use ($hub, $away, $patient) {
        $relay = new Relay($hub->control, 'lost', 'reset');
        $failure = failure(Unavailable::class, fn () => $away($relay, $patient)->pushEvent(2));
        equal([$failure->mayHaveTakenEffect, $relay->connections()], [true, 3]);
        $relay = new Relay($hub->control, 'reset');
        failure(Unavailable::class, fn () => $away($relay, new Options(attempts: 1))->pushEvent(2));
        equal($relay->connections(), 1, 'attempts');
    });

    check('what could do harm twice is done once', function () use ($hub, $away, $patient) {
        $relay = new Relay($hub->control, 'lost', 'pass');
        $failure = failure(Unavailable::class, fn () => $away($relay, $patient)->disconnect(1));
        equal([$failure->mayHaveTakenEffect, $relay->connections()], [true, 1]);
    });

    check('calls share one connection', function () use ($hub, $away, $patient) {
        $relay = new Relay($hub->control, 'pass');
        $client = $away($relay, $patient);
        foreach (range(1, 20) as $round) {
            $client->pushEvent(3, ['round' => $round]);
        }
        failure(Duelhub\Error\DuelUnknown::class, fn () => $client->getDuel(404));
        $client->getNode();
        equal($relay->connections(), 1, 'connections');
    });

    check('large payloads', function () use ($hub, $patient) {
        $client = $hub->client($patient);
        $client->pushEvent(4, ['text' => str_repeat('x', 60_000)]);
        $failure = failure(Duelhub\Error\InvalidArgument::class,
            fn () => $client->pushEvent(4, ['text' => str_repeat('x', 3_000_000)]));
        equal($failure->field, 'payload_json');
    });

    check('a hub that was started again', function () use ($hub, $patient) {
        $client = $hub->client($patient);
        $client->pushEvent(5, ['a' => 1], 'before');
        $hub->stop();
        failure(Unavailable::class, fn () => $hub->client(new Options())->pushEvent(5));
        $hub->startAgain();
        $again = $client->pushEvent(5, ['a' => 1], 'before');
        equal([$again->duplicate, $again->position->seq], [true, 1], 'the kept connection is replaced');
    });

    check('what a push takes', function () use ($hub) {
        $client = $hub->client();
        $times = array_map(fn (int $round) => milliseconds(fn () => $client->pushEvent(6, ['round' => $round])), range(1, 300));
        sort($times);
        printf("a push over a kept connection, on the disk: %.2f ms, 99 of 100 under %.2f ms\n", $times[150], $times[297]);
    });
};
