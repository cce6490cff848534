<?php

declare(strict_types=1);

namespace Duelhub\Internal;

use Duelhub\Error\DeadlineExceeded;
use Duelhub\Error\HubException;
use Duelhub\Error\Unavailable;

/** A Connect server stream. Each message has an envelope: one byte of flags, four of length, JSON. @internal */
final class Stream
{
    private const HEAD_BYTES = 5;
    private const FLAG_END = 2;
    private const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
    private const WAIT_SECONDS = 0.25;

    /** What has come and is not yet a whole message. */
    private string $buffer = '';
    private bool $ended = false;

    /** @param float $answersBy when the head of the answer must be there, on the clock of Transport::nowMs() */
    public function __construct(
        private readonly \CurlHandle $curl,
        private readonly string $requestId,
        private readonly float $answersBy,
    ) {
        curl_setopt($curl, CURLOPT_WRITEFUNCTION, function (\CurlHandle $_, string $bytes): int {
            $this->buffer .= $bytes;
            return strlen($bytes);
        });
    }

    public static function envelope(string $message): string
    {
        return pack('CN', 0, strlen($message)) . $message;
    }

    /** @return \Generator<int, array<string, mixed>> */
    public function messages(?\Closure $stop): \Generator
    {
        $multi = curl_multi_init();
        curl_multi_add_handle($multi, $this->curl);
        try {
            do {
                curl_multi_exec($multi, $running);
                while (($message = $this->next()) !== null) {
                    yield $message;
                }
                if ($this->ended || ($stop !== null && $stop())) {
                    return;
                }
                $this->checkAnswered();
                // Returns at once when there is nothing to wait for yet, such as during the look-up of a name.
                if ($running && curl_multi_select($multi, self::WAIT_SECONDS) < 1) {
                    usleep(1000);
                }
            } while ($running);
            throw $this->broken($multi);
        } finally {
            // Also when the caller drops the generator: the hub sees the watcher go.
            curl_multi_remove_handle($multi, $this->curl);
        }
    }

    /** The next whole message; null if there is none yet, or the stream has ended in good order. */
    private function next(): ?array
    {
        if ($this->httpStatus() !== 200 || strlen($this->buffer) < self::HEAD_BYTES) {
            return null;
        }
        ['flags' => $flags, 'length' => $length] = unpack('Cflags/Nlength', $this->buffer);
        if ($length > self::MESSAGE_BYTES_MAX || ($flags & ~self::FLAG_END) !== 0) {
            throw HubException::fromAnswer(null, $this->httpStatus(), $this->requestId);
        }
        if (strlen($this->buffer) < self::HEAD_BYTES + $length) {
            return null;
        }
        $message = json_decode(substr($this->buffer, self::HEAD_BYTES, $length), true);
        $this->buffer = substr($this->buffer, self::HEAD_BYTES + $length);
        if (!is_array($message) || isset($message['error'])) {
            throw HubException::fromAnswer($message['error'] ?? null, $this->httpStatus(), $this->requestId);
        }
        $this->ended = $flags === self::FLAG_END;
        return $this->ended ? null : $message;
    }

    private function checkAnswered(): void
    {
        if ($this->httpStatus() === 0 && Transport::nowMs() > $this->answersBy) {
            throw new DeadlineExceeded('the hub has not answered in time', 'deadline_exceeded', requestId: $this->requestId);
        }
    }

    /** Why a stream is over that has not ended in good order. */
    private function broken(\CurlMultiHandle $multi): HubException
    {
        $error = curl_multi_info_read($multi)['result'] ?? CURLE_OK;
        if ($error !== CURLE_OK) {
            return Transport::failed($error, curl_strerror($error), $this->curl, $this->requestId);
        }
        if ($this->httpStatus() !== 200) {
            return HubException::fromAnswer(json_decode($this->buffer, true), $this->httpStatus(), $this->requestId);
        }
        return new Unavailable('the stream ended early', 'unavailable', requestId: $this->requestId);
    }

    private function httpStatus(): int
    {
        return curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE);
    }
}
