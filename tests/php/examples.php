<?php

// The examples in PHP, run as their first lines say. Usage: examples.php <duelhub>

declare(strict_types=1);

require __DIR__ . '/support/cases.php';

main($argv[1], ['examples']);
