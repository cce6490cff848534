<?php

// A count of what holds and what does not; each case goes on when another has failed.

declare(strict_types=1);

require __DIR__ . '/../../../clients/php/autoload.php';
// Debian's package php-psr-log.
require '/usr/share/php/Psr/Log/autoload.php';
require __DIR__ . '/Process.php';
require __DIR__ . '/Hub.php';
require __DIR__ . '/Relay.php';
require __DIR__ . '/Player.php';
require __DIR__ . '/Lines.php';

const DEADLINE_S = 10;

final class Cases
{
    public static int $passed = 0;
    public static int $failed = 0;
}

/** Runs every suite, prints the count, and exits. A signal stops the hubs on its way out. */
function main(string $binary, array $suites): never
{
    pcntl_async_signals(true);
    pcntl_signal(SIGTERM, static fn () => exit(128 + SIGTERM));
    // A warning or a notice is a failure, unless it is silenced with @.
    set_error_handler(static fn (int $level, string $text, string $file, int $line) =>
        (error_reporting() & $level) === 0 ? true : throw new ErrorException($text, 0, $level, $file, $line));
    foreach ($suites as $suite) {
        check("suite $suite", static fn () => (require __DIR__ . "/../suites/$suite.php")($binary));
    }
    printf("%d passed, %d failed\n", Cases::$passed, Cases::$failed);
    exit(Cases::$failed > 0 ? 1 : 0);
}

/** One case: it fails with whatever its body throws. */
function check(string $name, Closure $body): void
{
    try {
        $body();
        Cases::$passed++;
    } catch (Throwable $failure) {
        Cases::$failed++;
        echo "FAILED  $name\n$failure\n";
    }
}

function equal(mixed $actual, mixed $wanted, string $what = 'value'): void
{
    if ($actual !== $wanted) {
        $shown = static fn (mixed $value) => var_export($value, true);
        throw new AssertionError("$what\n  is     {$shown($actual)}\n  wanted {$shown($wanted)}");
    }
}

function holds(bool $condition, string $what): void
{
    equal($condition, true, $what);
}

/**
 * How a call fails that has to.
 *
 * @template T of Throwable
 * @param class-string<T> $class
 * @return T
 */
function failure(string $class, Closure $call): Throwable
{
    try {
        $call();
    } catch (Throwable $failure) {
        if ($failure::class !== $class) {
            throw $failure;
        }
        return $failure;
    }
    throw new AssertionError("it was answered, and not with $class");
}

/** Asks again until `$condition` returns something true, and returns it. */
function until(Closure $condition, string $what): mixed
{
    $endsAt = microtime(true) + DEADLINE_S;
    while (microtime(true) < $endsAt) {
        if ($found = $condition()) {
            return $found;
        }
        usleep(10_000);
    }
    throw new AssertionError('not within ' . DEADLINE_S . " s: $what");
}

/** How long it takes, in milliseconds. */
function milliseconds(Closure $body): float
{
    $began = hrtime(true);
    $body();
    return (hrtime(true) - $began) / 1e6;
}

/** A new directory for one test. */
function new_directory(): string
{
    $directory = sys_get_temp_dir() . '/duelhub-php-' . bin2hex(random_bytes(8));
    mkdir($directory);
    return $directory;
}

/** Removes a file, or a directory with all that is in it. */
function remove(string $path): void
{
    if (!is_dir($path)) {
        unlink($path);
        return;
    }
    foreach (array_diff(scandir($path), ['.', '..']) as $name) {
        remove("$path/$name");
    }
    rmdir($path);
}
