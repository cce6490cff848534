<?php

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\Options;

/** A hub of its own: free ports, the settings of production, the embedded engine in a directory of its own. */
final class Hub
{
    public const TOKEN = 'a-token-for-the-tests-of-php';

    public readonly string $edge;
    public readonly string $control;
    private readonly string $directory;
    private readonly array $variables;
    private Process $process;

    public function __construct(private readonly string $binary, array $variables = [])
    {
        $this->directory = new_directory();
        $this->variables = $variables + [
            'APP_ENV' => 'production',
            'WEBAPP_URL' => 'https://game.example',
            'WEBSOCKET_TICKET_SECRET' => 'a-secret-for-tests-that-is-long-enough',
            'CONTROL_TOKEN' => self::TOKEN,
            'WEBSOCKET_PORT' => '0',
            'CONTROL_PORT' => '0',
            'ADMIN_PORT' => '0',
            'WEBSOCKET_DRAIN_SECONDS' => '0',
            'PRESENCE_GRACE_SECONDS' => '0',
            'DATA_DIR' => $this->directory,
        ];
        ['edge' => $this->edge, 'control' => $this->control] = $this->start([]);
    }

    public function __destruct()
    {
        $this->process->kill();
        remove($this->directory);
    }

    public function client(Options $options = new Options(timeoutMs: 1000 * DEADLINE_S), ?string $address = null): Client
    {
        return new Client('http://' . ($address ?? $this->control), self::TOKEN, $options);
    }

    public function stop(): void
    {
        equal($this->process->terminate(), 0, 'the exit status of the hub');
    }

    /** Again on the same control port. */
    public function startAgain(): void
    {
        $this->start(['CONTROL_PORT' => explode(':', $this->control)[1]]);
    }

    private function start(array $variables): array
    {
        // No variable of the caller's reaches the hub.
        $this->process = new Process([$this->binary], $variables + $this->variables, $this->directory);
        [$line] = $this->process->says('/^.*"message":"serving".*$/m');
        $serving = json_decode($line, true);
        until(static fn () => @file_get_contents("http://{$serving['admin']}/readyz") !== false, 'ready');
        return $serving;
    }
}
