<?php

declare(strict_types=1);

/** A program that a test has started: gone when the object is, at the latest. */
final class Process
{
    /** @var resource */
    private $process;
    private readonly string $output;
    private ?int $status = null;

    /** @param array<string, string>|null $variables null: the caller's */
    public function __construct(array $command, ?array $variables = null, ?string $directory = null)
    {
        $this->output = tempnam(sys_get_temp_dir(), 'duelhub-php-');
        $files = [['file', '/dev/null', 'r'], ['file', $this->output, 'w'], ['file', $this->output, 'a']];
        $this->process = proc_open($command, $files, $pipes, $directory, $variables);
    }

    public function __destruct()
    {
        $this->kill();
        unlink($this->output);
    }

    public function isRunning(): bool
    {
        if ($this->status === null) {
            $now = proc_get_status($this->process);
            // The exit status is told only once.
            $this->status = $now['running'] ? null : $now['exitcode'];
        }
        return $this->status === null;
    }

    /** SIGTERM, as systemd sends it; returns the exit status. */
    public function terminate(): int
    {
        proc_terminate($this->process, SIGTERM);
        return $this->wait();
    }

    public function kill(): void
    {
        if ($this->isRunning()) {
            proc_terminate($this->process, SIGKILL);
            $this->wait();
        }
    }

    /** Waits until the program ends by itself; its exit status. */
    public function wait(): int
    {
        until(fn () => !$this->isRunning(), 'the program ends');
        return $this->status;
    }

    /** What it has said so far. */
    public function said(): string
    {
        return file_get_contents($this->output);
    }

    /** Waits for a match in what it says, and returns the match. */
    public function says(string $pattern): array
    {
        return until(function () use ($pattern) {
            $found = preg_match($pattern, $this->said(), $match) === 1;
            if (!$found && !$this->isRunning()) {
                throw new AssertionError("it ended with status $this->status:\n" . $this->said());
            }
            return $found ? $match : null;
        }, "$pattern in:\n" . $this->said());
    }
}
