<?php

// The client as a backend meets the hub with it. Usage: client.php <duelhub>

declare(strict_types=1);

require __DIR__ . '/support/cases.php';

main($argv[1], ['calls', 'errors', 'tries', 'network', 'watching', 'tls']);
