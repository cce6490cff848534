<?php

// TLS, and mutual TLS.

declare(strict_types=1);

use Duelhub\Client;
use Duelhub\Error\Unavailable;
use Duelhub\Options;

/** `<name>.pem` and `<name>.key`, signed by an authority of this run. */
function make_certificates(string $folder): void
{
    $run = static function (string ...$arguments) use ($folder): void {
        $openssl = new Process(['openssl', ...$arguments], directory: $folder);
        equal($openssl->wait(), 0, $openssl->said());
    };
    $key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    $run('req', '-x509', ...$key, ...['-days', '1', '-subj', '/CN=authority', '-keyout', 'authority.key', '-out',
        'authority.pem']);
    $extensions = ['hub' => 'subjectAltName=IP:127.0.0.1', 'backend' => 'extendedKeyUsage=clientAuth'];
    foreach ($extensions as $name => $extension) {
        file_put_contents("$folder/$name.ext", $extension);
        $run('req', '-new', ...$key, ...['-subj', "/CN=$name", '-keyout', "$name.key", '-out', "$name.csr"]);
        $run('x509', '-req', '-days', '1', '-in', "$name.csr", '-CA', 'authority.pem', '-CAkey', 'authority.key',
            '-CAcreateserial', '-extfile', "$name.ext", '-out', "$name.pem");
    }
}

return static function (string $binary): void {
    $folder = new_directory();
    make_certificates($folder);
    $hub = new Hub($binary, ['CONTROL_TLS_CERT' => "$folder/hub.pem", 'CONTROL_TLS_KEY' => "$folder/hub.key",
        'CONTROL_TLS_CLIENT_CA' => "$folder/authority.pem"]);
    $client = static fn (string ...$files) => new Client("https://$hub->control", Hub::TOKEN,
        new Options(...array_map(static fn ($name) => "$folder/$name", $files), timeoutMs: 1000 * DEADLINE_S));
    $ours = ['certFile' => 'backend.pem', 'keyFile' => 'backend.key'];

    check('both sides have certificates', function () use ($client, $ours) {
        $calls = $client(...['caFile' => 'authority.pem'] + $ours);
        equal($calls->pushEvent(1)->position->seq, 1);
        equal($calls->watchDuels([1])->current()->kind, 'opened');
    });

    $refused = ['no certificate of ours' => ['caFile' => 'authority.pem'], 'no authority for the hub' => $ours];
    foreach ($refused as $name => $files) {
        check($name, function () use ($client, $files) {
            failure(Unavailable::class, fn () => $client(...$files)->getNode());
            failure(Unavailable::class, fn () => $client(...$files)->watchDuels()->current());
        });
    }
    remove($folder);
};
