<?php

// Relays connections to an upstream. Usage: relay_process.php <upstream> <fate of the 1st connection> <of the 2nd> …
//   pass     both directions are relayed
//   reset    the request is read, not relayed, and the connection is reset
//   lost     the request is relayed, and the connection is reset instead of the answer
//   silent   the request is read, and nothing follows

declare(strict_types=1);

[, $upstream] = $argv;
$fates = array_slice($argv, 2);
$listener = socket_create_listen(0);
socket_getsockname($listener, $host, $port);
echo "listening on 127.0.0.1:$port\n";

/** Sends RST instead of FIN. */
function reset_connection(Socket $socket): void
{
    socket_set_option($socket, SOL_SOCKET, SO_LINGER, ['l_onoff' => 1, 'l_linger' => 0]);
    socket_close($socket);
}

/** @var array<int, array{from: Socket, to: Socket, fate: string, answers: bool}> $directions by object id of `from` */
$directions = [];

function end_pair(array $direction, array &$directions): void
{
    unset($directions[spl_object_id($direction['from'])], $directions[spl_object_id($direction['to'])]);
}

while (true) {
    $readable = [$listener, ...array_column($directions, 'from')];
    $none = null;
    socket_select($readable, $none, $none, null);
    foreach ($readable as $socket) {
        if ($socket === $listener) {
            echo "connection\n";
            $client = socket_accept($listener);
            $hub = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
            [$hubHost, $hubPort] = explode(':', $upstream);
            @socket_connect($hub, $hubHost, (int) $hubPort);
            $fate = count($fates) > 1 ? array_shift($fates) : $fates[0];
            $directions[spl_object_id($client)] = ['from' => $client, 'to' => $hub, 'fate' => $fate, 'answers' => false];
            $directions[spl_object_id($hub)] = ['from' => $hub, 'to' => $client, 'fate' => $fate, 'answers' => true];
            continue;
        }
        $direction = $directions[spl_object_id($socket)] ?? null;
        if ($direction === null) {
            continue; // Its pair ended in this round.
        }
        ['to' => $to, 'fate' => $fate, 'answers' => $answers] = $direction;
        $bytes = @socket_read($socket, 65536);
        if ($bytes === false || $bytes === '') {
            end_pair($direction, $directions);
            socket_close($socket);
            socket_close($to);
        } elseif ($fate === 'reset' || ($fate === 'lost' && $answers)) {
            end_pair($direction, $directions);
            reset_connection($answers ? $to : $socket);
        } elseif ($fate !== 'silent') {
            @socket_write($to, $bytes);
        }
    }
}
