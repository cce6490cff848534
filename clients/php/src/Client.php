<?php

declare(strict_types=1);

namespace Duelhub;

use Duelhub\Answer\Change;
use Duelhub\Answer\ClosedDuel;
use Duelhub\Answer\Duel;
use Duelhub\Answer\DuelSummary;
use Duelhub\Answer\Node;
use Duelhub\Answer\OpenedDuel;
use Duelhub\Answer\PushedEvent;
use Duelhub\Answer\Ticket;
use Duelhub\Error\HubException;
use Duelhub\Internal\Json;
use Duelhub\Internal\Transport;

/**
 * The calls of a hub. `proto/duelhub/v1/control.proto` is their manual.
 *
 * Ids are numbers or texts of digits, as a database driver returns them. Every call throws HubException, or one of its kinds in
 * Duelhub\Error. The try forms throw nothing: they tell the logger, and return null.
 *
 * Requests have the names of control.proto, so that errors name fields the same way everywhere.
 */
final class Client
{
    private readonly Transport $transport;

    /** @param string $token the hub's CONTROL_TOKEN; empty: the hub wants none */
    public function __construct(
        string $url = 'http://127.0.0.1:50051',
        #[\SensitiveParameter] string $token = '',
        private readonly Options $options = new Options(),
    ) {
        $this->transport = new Transport($url, $token, $options);
    }

    /**
     * Declares a duel. May be repeated: it adds participants, and never removes one.
     *
     * @param list<int|string|Participant> $participants user ids, or participants with their id at Telegram
     * @param float|null $presenceGraceSeconds how long a user may be gone before they count as offline; null: as it was
     * @param bool $reopen a closed duel begins anew
     */
    public function openDuel(
        int|string $duelId,
        array $participants = [],
        ?float $presenceGraceSeconds = null,
        bool $reopen = false,
    ): OpenedDuel {
        $request = ['duel_id' => $duelId, 'participants' => array_map(self::participant(...), array_values($participants))];
        if ($presenceGraceSeconds !== null) {
            $request['settings'] = ['presence_grace' => sprintf('%.3Fs', $presenceGraceSeconds)];
        }
        if ($reopen) {
            $request['reopen'] = true;
        }
        return OpenedDuel::fromJson($this->call('OpenDuel', $request));
    }

    /**
     * Signs a ticket for one user in one duel. Nothing is stored until it is used.
     *
     * @param int|null $ttlSeconds life of the ticket; null: the hub's WEBSOCKET_TICKET_TTL_SECONDS
     */
    public function issueTicket(
        int|string $duelId,
        int|string $userId,
        Role $role = Role::Player,
        ?int $ttlSeconds = null,
    ): Ticket {
        $request = ['duel_id' => $duelId, 'user_id' => $userId, 'role' => $role->value];
        if ($ttlSeconds !== null) {
            $request['ttl'] = "{$ttlSeconds}s";
        }
        return Ticket::fromJson($this->call('IssueTicket', $request));
    }

    /** Makes one ticket worthless, and the session that it began. */
    public function revokeTicket(string $jti): void
    {
        $this->call('RevokeTickets', ['jti' => $jti]);
    }

    /** Makes worthless all tickets that were issued so far for one user in one duel. Open connections stay: see disconnect. */
    public function revokeTicketsOf(int|string $duelId, int|string $userId): void
    {
        $this->call('RevokeTickets', ['user' => ['duel_id' => $duelId, 'user_id' => $userId]]);
    }

    /**
     * Stores one event, and hands it to the connections of the duel.
     *
     * @param array<string, mixed>|object $payload what json_encode makes an object of; an empty array is one, too
     * @param string $idempotencyKey makes repeating safe: the hub stores one event per key. Empty: one is made up, which
     *     makes this call's own attempts safe. Give one if you push again after a failure
     * @param string $type the frame's type; empty: "duel_update"
     * @param Audience|null $audience who receives it; null: everybody in the duel
     * @param array<int|string, array<string, mixed>|object> $views by user id: what this user receives instead
     * @param string $coalesceKey of events with the same key only the newest matters; empty: every event is delivered
     * @param bool $transient the event makes no sense later
     */
    public function pushEvent(
        int|string $duelId,
        array|object $payload = [],
        string $idempotencyKey = '',
        string $type = '',
        ?Audience $audience = null,
        array $views = [],
        string $coalesceKey = '',
        bool $transient = false,
    ): PushedEvent {
        $request = self::event($payload, $type, $audience, $views) + [
            'duel_id' => $duelId,
            'idempotency_key' => $idempotencyKey === '' ? bin2hex(random_bytes(16)) : $idempotencyKey,
            'coalesce_key' => $coalesceKey,
            'transient' => $transient,
        ];
        return PushedEvent::fromJson($this->call('PushEvent', $request));
    }

    /** Ends a duel: Finished or Cancelled. Every connection receives the last event, then `duel_closed`. May be repeated. */
    public function closeDuel(
        int|string $duelId,
        DuelStatus $status = DuelStatus::Finished,
        ?LastEvent $lastEvent = null,
    ): ClosedDuel {
        $request = ['duel_id' => $duelId, 'status' => $status->value];
        if ($lastEvent !== null) {
            $request['last_event'] = self::event(
                $lastEvent->payload, $lastEvent->type, $lastEvent->audience, $lastEvent->views,
            );
        }
        return ClosedDuel::fromJson($this->call('CloseDuel', $request));
    }

    /** One duel, with who is online. */
    public function getDuel(int|string $duelId): Duel
    {
        return Duel::fromJson($this->call('GetDuel', ['duel_id' => $duelId])['duel'] ?? []);
    }

    /**
     * All duels in the order of their ids. Each page is fetched when it is needed.
     *
     * @param DuelStatus|null $status only duels of this status; null: all
     * @return \Generator<int, DuelSummary>
     */
    public function listDuels(?DuelStatus $status = null, int $pageSize = 100): \Generator
    {
        $request = ['page_size' => $pageSize, 'status' => ($status ?? DuelStatus::Unspecified)->value, 'page_token' => ''];
        do {
            $page = $this->call('ListDuels', $request);
            foreach ($page['duels'] ?? [] as $duel) {
                yield DuelSummary::fromJson($duel);
            }
            $request['page_token'] = $page['nextPageToken'] ?? '';
        } while ($request['page_token'] !== '');
    }

    /**
     * Closes connections: all of a duel, or those of one user in it. Is not repeated once it may have taken effect: it would
     * hit those who have come back.
     *
     * @param bool $reconnect true: the clients may come back at once; false: they should stop
     * @param string $reason sent to the client in the close frame
     * @return int how many connections this node closed
     */
    public function disconnect(
        int|string $duelId,
        int|string|null $userId = null,
        bool $reconnect = false,
        string $reason = '',
    ): int {
        $request = ['duel_id' => $duelId, 'reconnect' => $reconnect, 'reason' => $reason];
        if ($userId !== null) {
            $request['user_id'] = $userId;
        }
        return $this->call('Disconnect', $request, repeatable: false)['connections'] ?? 0;
    }

    /** The node's version, uptime, engine, counts and limits. */
    public function getNode(): Node
    {
        return Node::fromJson($this->call('GetNode', []));
    }

    /**
     * What happens in one duel, several, or all (none given): the present state, then `synced`, then each change. For a
     * process of the command line: it lasts until the hub ends it, which throws, or `$stop` or a `break` does.
     *
     * @param list<int|string> $duelIds
     * @param (\Closure(): bool)|null $stop asked several times a second; true ends the watch
     * @return \Generator<int, Change>
     */
    public function watchDuels(array $duelIds = [], ?\Closure $stop = null): \Generator
    {
        foreach ($this->transport->stream('WatchDuels', ['duel_ids' => array_values($duelIds)], $stop) as $message) {
            yield Change::fromJson($message);
        }
    }

    /** openDuel that never throws. Null: the logger knows why. */
    public function tryOpenDuel(
        mixed $duelId,
        mixed $participants = [],
        mixed $presenceGraceSeconds = null,
        mixed $reopen = false,
    ): ?OpenedDuel {
        return $this->attempt('openDuel', func_get_args());
    }

    /** issueTicket that never throws. Null: the logger knows why. */
    public function tryIssueTicket(
        mixed $duelId,
        mixed $userId,
        mixed $role = Role::Player,
        mixed $ttlSeconds = null,
    ): ?Ticket {
        return $this->attempt('issueTicket', func_get_args());
    }

    /** pushEvent that never throws. Null: the logger knows why. */
    public function tryPushEvent(
        mixed $duelId,
        mixed $payload = [],
        mixed $idempotencyKey = '',
        mixed $type = '',
        mixed $audience = null,
        mixed $views = [],
        mixed $coalesceKey = '',
        mixed $transient = false,
    ): ?PushedEvent {
        return $this->attempt('pushEvent', func_get_args());
    }

    /** closeDuel that never throws. Null: the logger knows why. */
    public function tryCloseDuel(
        mixed $duelId,
        mixed $status = DuelStatus::Finished,
        mixed $lastEvent = null,
    ): ?ClosedDuel {
        return $this->attempt('closeDuel', func_get_args());
    }

    /** @return array<string, mixed> */
    private function call(string $method, array $request, bool $repeatable = true): array
    {
        return $this->transport->call($method, $request, $repeatable);
    }

    /** Arguments of any type come here, because a wrong one must not throw into a game either. */
    private function attempt(string $call, array $arguments): mixed
    {
        try {
            return $this->$call(...$arguments);
        } catch (\Throwable $failure) {
            $this->report($call, $arguments[0], $failure);
            return null;
        }
    }

    private function report(string $call, mixed $duelId, \Throwable $failure): void
    {
        $message = "duelhub: $call failed: {$failure->getMessage()}";
        $context = ['duel_id' => is_scalar($duelId) ? $duelId : get_debug_type($duelId)];
        if ($failure instanceof HubException) {
            $context += [
                'status' => $failure->status,
                'reason' => $failure->reason,
                'request_id' => $failure->requestId,
                'field' => $failure->field,
                'may_have_taken_effect' => $failure->mayHaveTakenEffect,
            ];
        }
        try {
            if ($this->options->logger !== null) {
                $this->options->logger->warning($message, $context);
                return;
            }
        } catch (\Throwable) {
            // A logger that fails must not throw into the game either.
        }
        error_log($message . ' ' . json_encode($context, JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR));
    }

    /** @return array<string, mixed> */
    private static function event(array|object $payload, string $type, ?Audience $audience, array $views): array
    {
        $event = ['type' => $type, 'payload_json' => Json::payload($payload), 'views' => []];
        foreach ($views as $userId => $view) {
            $event['views'][] = ['user_id' => $userId, 'payload_json' => Json::payload($view, 'views')];
        }
        return $audience === null ? $event : $event + ['audience' => $audience->json];
    }

    private static function participant(int|string|Participant $participant): array
    {
        if (!$participant instanceof Participant) {
            return ['user_id' => $participant];
        }
        $telegram = $participant->telegramId === null ? [] : ['telegram_id' => $participant->telegramId];
        return ['user_id' => $participant->userId] + $telegram;
    }
}
