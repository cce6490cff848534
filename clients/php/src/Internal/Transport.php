<?php

declare(strict_types=1);

namespace Duelhub\Internal;

use Duelhub\Error\DeadlineExceeded;
use Duelhub\Error\HubException;
use Duelhub\Error\Unavailable;
use Duelhub\Options;

/** Calls over the Connect protocol: a POST with JSON. Keeps one connection, and repeats what is safe to repeat. @internal */
final class Transport
{
    private const SERVICE = '/duelhub.v1.ControlService/';
    private const PAUSE_MIN_US = 10_000;
    private const PAUSE_MAX_US = 30_000;

    /** One handle for all unary calls: it keeps its connection open. */
    private ?\CurlHandle $curl = null;

    public function __construct(
        private readonly string $url,
        #[\SensitiveParameter] private readonly string $token,
        private readonly Options $options,
    ) {
        if (preg_match('#^https?://[^/]+/?$#', $url) !== 1) {
            throw new \InvalidArgumentException('the url must be like http://127.0.0.1:50051');
        }
        if (preg_match('/[\x00-\x1f\x7f]/', $token) === 1) {
            throw new \InvalidArgumentException('the token has a line break or another control character');
        }
    }

    /** What var_dump() shows: not the token. */
    public function __debugInfo(): array
    {
        return ['url' => $this->url];
    }

    /**
     * One unary call, with its attempts.
     *
     * An attempt takes at most half of the time that is left, and the last one all of it: a connection that died unnoticed
     * leaves time for another.
     *
     * @param bool $repeatable to repeat the call does no harm, even if it has taken effect
     * @return array<string, mixed> the answer
     */
    public function call(string $method, array $request, bool $repeatable): array
    {
        $body = Json::request($request);
        $requestId = bin2hex(random_bytes(8));
        $endsAt = self::nowMs() + $this->options->timeoutMs;
        $uncertain = false;
        for ($left = $this->options->attempts; ; $left--) {
            $remaining = $endsAt - self::nowMs();
            try {
                $timeoutMs = max(1, (int) ($left > 1 ? $remaining / 2 : $remaining));
                return $this->attempt($method, $body, $requestId, $timeoutMs, $repeatable);
            } catch (HubException $failure) {
                $failure = $uncertain ? $failure->afterUncertainAttempt() : $failure;
                $uncertain = $failure->mayHaveTakenEffect;
                $safe = $failure instanceof Unavailable && ($repeatable || !$uncertain);
                $pauseUs = random_int(self::PAUSE_MIN_US, self::PAUSE_MAX_US);
                if (!$safe || $left === 1 || self::nowMs() + $pauseUs / 1000 + 1 >= $endsAt) {
                    throw $failure;
                }
                usleep($pauseUs);
            }
        }
    }

    /**
     * A server stream: its messages, as they come.
     *
     * @param (\Closure(): bool)|null $stop asked several times a second; true ends the stream
     * @return \Generator<int, array<string, mixed>>
     */
    public function stream(string $method, array $request, ?\Closure $stop): \Generator
    {
        $requestId = bin2hex(random_bytes(8));
        // A handle of its own: calls go on while the stream is open.
        $curl = $this->handle();
        curl_setopt_array($curl, [
            CURLOPT_URL => $this->urlOf($method),
            CURLOPT_HTTPHEADER => $this->headers('application/connect+json', $requestId),
            CURLOPT_POSTFIELDS => Stream::envelope(Json::request($request)),
            CURLOPT_CONNECTTIMEOUT_MS => $this->options->connectTimeoutMs,
            // A stream may be silent for long. So the kernel asks whether the other side is still there.
            CURLOPT_TCP_KEEPALIVE => 1,
            CURLOPT_TCP_KEEPIDLE => 20,
            CURLOPT_TCP_KEEPINTVL => 10,
        ]);
        $stream = new Stream($curl, $requestId, self::nowMs() + $this->options->timeoutMs);
        yield from $stream->messages($stop);
    }

    /** How curl's words become a failure. */
    public static function failed(int $error, string $message, \CurlHandle $curl, string $requestId): HubException
    {
        // Once the request's head was sent, the hub may have acted on it.
        $sent = curl_getinfo($curl, CURLINFO_REQUEST_SIZE) > 0;
        if ($error === CURLE_OPERATION_TIMEDOUT && $sent) {
            return new DeadlineExceeded(
                'the hub has not answered in time', 'deadline_exceeded', requestId: $requestId, mayHaveTakenEffect: true,
            );
        }
        $message = ($sent ? 'the connection to the hub broke: ' : 'the hub cannot be reached: ') . $message;
        return new Unavailable($message, 'unavailable', requestId: $requestId, mayHaveTakenEffect: $sent);
    }

    public static function nowMs(): float
    {
        return hrtime(true) / 1e6;
    }

    private function attempt(string $method, string $body, string $requestId, int $timeoutMs, bool $repeatable): array
    {
        $this->curl ??= $this->handle();
        curl_setopt_array($this->curl, [
            CURLOPT_URL => $this->urlOf($method),
            CURLOPT_HTTPHEADER => $this->headers('application/json', $requestId, "Connect-Timeout-Ms: $timeoutMs"),
            CURLOPT_POSTFIELDS => $body,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT_MS => $timeoutMs,
            CURLOPT_CONNECTTIMEOUT_MS => min($timeoutMs, $this->options->connectTimeoutMs),
            // curl itself repeats a request whose kept connection turns out to be dead.
            CURLOPT_FRESH_CONNECT => !$repeatable,
        ]);
        $answer = curl_exec($this->curl);
        if ($answer === false) {
            throw self::failed(curl_errno($this->curl), curl_error($this->curl), $this->curl, $requestId);
        }
        $status = curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE);
        $json = json_decode($answer, true);
        if ($status !== 200 || !is_array($json)) {
            throw HubException::fromAnswer($json, $status, $requestId);
        }
        return $json;
    }

    private function handle(): \CurlHandle
    {
        $curl = curl_init();
        curl_setopt_array($curl, [
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
            // A proxy for the outside world, from the environment, has nothing to do with the hub.
            CURLOPT_PROXY => '',
            // Timeouts under a second do not work with signals.
            CURLOPT_NOSIGNAL => true,
        ]);
        $files = [CURLOPT_CAINFO => $this->options->caFile, CURLOPT_SSLCERT => $this->options->certFile,
            CURLOPT_SSLKEY => $this->options->keyFile];
        curl_setopt_array($curl, array_filter($files, is_string(...)));
        return $curl;
    }

    private function urlOf(string $method): string
    {
        return rtrim($this->url, '/') . self::SERVICE . $method;
    }

    /** @return list<string> */
    private function headers(string $contentType, string $requestId, string ...$more): array
    {
        $headers = [
            "Content-Type: $contentType",
            'Connect-Protocol-Version: 1',
            "X-Request-Id: $requestId",
            // Else curl asks before it sends a large body, and waits a second for the answer.
            'Expect:',
            ...$more,
        ];
        return $this->token === '' ? $headers : [...$headers, "Authorization: Bearer $this->token"];
    }
}
