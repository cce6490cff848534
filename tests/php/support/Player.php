<?php

declare(strict_types=1);

/** One WebSocket (RFC 6455) of a player who only reads: frames shorter than 64 KiB. */
final class Player
{
    /** @var resource */
    private $socket;

    public function __construct(string $address, string $ticket)
    {
        $this->socket = stream_socket_client("tcp://$address", timeout: DEADLINE_S);
        stream_set_timeout($this->socket, DEADLINE_S);
        $key = base64_encode(random_bytes(16));
        fwrite($this->socket, "GET /ws?ticket=$ticket HTTP/1.1\r\nHost: $address\r\nUpgrade: websocket\r\n"
            . "Connection: Upgrade\r\nSec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\n\r\n");
        holds(str_contains(fgets($this->socket), ' 101 '), 'the upgrade');
        while (trim(fgets($this->socket)) !== '') {
        }
    }

    /** The next frame of one of these types; others are passed over. */
    public function next(string ...$types): array
    {
        do {
            $frame = json_decode($this->text(), true);
        } while (!in_array($frame['type'], $types, true));
        return $frame;
    }

    /** Goes as a phone does that loses its network. */
    public function leave(): void
    {
        fclose($this->socket);
    }

    /** The next text frame as it is. */
    public function text(): string
    {
        do {
            ['head' => $head, 'length' => $length] = unpack('Chead/Clength', $this->read(2));
            if ($length === 126) {
                $length = unpack('n', $this->read(2))[1];
            }
            $body = $length > 0 ? $this->read($length) : '';
            $kind = $head & 0x0f;
            holds($kind !== 8, 'the connection is open');
        } while ($kind !== 1);
        return $body;
    }

    private function read(int $count): string
    {
        $bytes = stream_get_contents($this->socket, $count);
        equal(strlen($bytes), $count, 'bytes read');
        return $bytes;
    }
}
