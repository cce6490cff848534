<?php

// Stands in for the game's old realtime process: its tickets, its frames, its signal files, its poll of the database.
// Arguments: the port.

declare(strict_types=1);

require __DIR__ . '/game.php';

const SIGNALS_EVERY_S = 0.2;
const DATABASE_EVERY_S = 4.0;

/** One WebSocket (RFC 6455), with what the frames here need: text, close, and no fragments. */
final class Connection
{
    public int $duel = 0;
    public bool $gone = false;
    private bool $upgraded = false;
    private string $read = '';

    /** @param resource $stream */
    public function __construct(public readonly mixed $stream)
    {
    }

    public function send(array $frame): void
    {
        $text = json_encode($frame, JSON_UNESCAPED_UNICODE);
        $length = strlen($text);
        @fwrite($this->stream, "\x81" . ($length < 126 ? chr($length) : "\x7e" . pack('n', $length)) . $text);
    }

    public function close(): void
    {
        @fwrite($this->stream, "\x88\x00");
        $this->gone = true;
    }

    public function receive(): void
    {
        $bytes = fread($this->stream, 8192);
        if ($bytes === '' || $bytes === false) {
            $this->gone = true;
            return;
        }
        $this->read .= $bytes;
        if (!$this->upgraded) {
            $this->upgrade();
        }
        while (!$this->gone && ($frame = $this->frame()) !== null) {
            [$opcode, $text] = $frame;
            if ($opcode === 8) {
                $this->close();
            } elseif ((json_decode($text, true)['type'] ?? '') === 'ping') {
                $this->send(['type' => 'pong', 'ts' => time()]);
            }
        }
    }

    private function upgrade(): void
    {
        if (!str_contains($this->read, "\r\n\r\n")) {
            return;
        }
        [$head, $this->read] = explode("\r\n\r\n", $this->read, 2);
        if (!preg_match('/^Sec-WebSocket-Key: *(\S+)/mi', $head, $key)) {
            $this->gone = true;
            return;
        }
        $accept = base64_encode(sha1("$key[1]258EAFA5-E914-47DA-95CA-C5AB0DC85B11", true));
        fwrite($this->stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Accept: $accept\r\n\r\n");
        $this->upgraded = true;
        preg_match('/[?&]ticket=([^& ]*)/', strtok($head, "\r"), $ticket);
        $this->enter(urldecode($ticket[1] ?? ''));
    }

    private function enter(string $ticket): void
    {
        static $used = [];
        $claims = claims($ticket);
        $duel = $claims === null ? null : snapshot($claims['duel_id']);
        $refusal = match (true) {
            $claims === null || $claims['exp'] < time() => 'invalid_ticket',
            isset($used[$claims['jti']]) => 'ticket_already_used',
            in_array($duel['status'], OVER, true) => 'duel_closed',
            default => null,
        };
        if ($refusal !== null) {
            $this->send(['type' => 'error', 'message' => $refusal]);
            $this->close();
            return;
        }
        $used[$claims['jti']] = true;
        $this->duel = $claims['duel_id'];
        $this->send(['type' => 'connected', 'duel_id' => $this->duel, 'server_ts' => time()]);
    }

    /** @return array{int, string}|null the next whole frame */
    private function frame(): ?array
    {
        if (!$this->upgraded || strlen($this->read) < 6) {
            return null;
        }
        $length = ord($this->read[1]) & 0x7f;
        if (strlen($this->read) < 6 + $length) {
            return null;
        }
        $mask = substr($this->read, 2, 4);
        $text = substr($this->read, 6, $length) ^ str_pad('', $length, $mask);
        $opcode = ord($this->read[0]) & 0x0f;
        $this->read = substr($this->read, 6 + $length);
        return [$opcode, $text];
    }
}

/**
 * Tells the players of these duels what has changed.
 *
 * @param array<int, string|null> $versions by duel: what its signal file said
 * @param array<int, Connection> $connections
 * @param array<int, string> $told
 */
function tell(array $versions, array $connections, array &$told): void
{
    foreach ($versions as $id => $version) {
        $payload = snapshot($id) + ['event_version' => $version];
        if (($told[$id] ?? '') === ($said = json_encode($payload))) {
            continue;
        }
        $told[$id] = $said;
        foreach (array_filter($connections, static fn (Connection $one) => $one->duel === $id) as $connection) {
            $connection->send(['type' => 'duel_update', 'payload' => $payload]);
            if (in_array($payload['status'], OVER, true)) {
                $connection->send(['type' => 'duel_closed', 'duel_id' => $id]);
                $connection->close();
            }
        }
    }
}

/** @return array<int, string> what the signal files say, by duel; they are gone then */
function signals(): array
{
    $versions = [];
    foreach (glob(getenv('GAME') . '/signals/duel_*.signal') as $file) {
        $versions[(int) substr(basename($file), 5)] = (string) file_get_contents($file);
        unlink($file);
    }
    return $versions;
}

pcntl_async_signals(true);
pcntl_signal(SIGTERM, static fn () => exit(0));
$server = stream_socket_server("tcp://127.0.0.1:$argv[1]", $code, $why) ?: exit("port $argv[1]: $why\n");
$connections = [];
$told = [];
$nextPoll = 0.0;
while (true) {
    $streams = [$server, ...array_column($connections, 'stream')];
    $none = null;
    // A signal interrupts it, and says so.
    if (@stream_select($streams, $none, $none, 0, (int) (SIGNALS_EVERY_S * 1e6)) > 0) {
        foreach ($streams as $stream) {
            if ($stream === $server) {
                $accepted = stream_socket_accept($server);
                $connections[(int) $accepted] = new Connection($accepted);
            } else {
                $connections[(int) $stream]->receive();
            }
        }
    }
    $versions = signals();
    if (microtime(true) > $nextPoll) {
        $nextPoll = microtime(true) + DATABASE_EVERY_S;
        $versions += array_fill_keys(array_filter(array_column($connections, 'duel')), null);
    }
    tell($versions, $connections, $told);
    $connections = array_filter($connections, static fn (Connection $one) => !$one->gone);
}
