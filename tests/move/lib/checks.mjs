// `duelhub check` in the middle of the move: green when all is well, and each of the known faults named, with what to do.

import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { equal, ok } from '../../browser/lib/check.mjs';
import { startNginx } from '../../browser/lib/nginx.mjs';
import { freePorts } from '../../browser/lib/ports.mjs';

const EXAMPLE = fileURLToPath(new URL('../../../deploy/app.env.example', import.meta.url));

/** One of each kind that PHP may take for something else than NAME=value. */
const LINES = [
  '# plain words, and: more/of - it\'s', '# (x)', '# "x"', '# a & b', '# a!', '# a ? b', '# a;(b', '# $x', '# [x] y', '# ~', '# кириллица — да',
  'A=a b', 'A=a(b', "A='a(b'", 'A=a=b', 'A=a;b', 'A="a(b"', "A='a", 'yes=1', 'A=https://a.b,https://c.d:8',
];

export async function checkFinds(rehearsal) {
  await allIsWell(rehearsal);
  await anOriginThatGetsNoTicket(rehearsal);
  await pagesThatGetNoTicket(rehearsal);
  await envFilesThatPhpRefuses(rehearsal);
  await anEnvFileForBoth(rehearsal);
  await aLocationThatWins(rehearsal);
  await anotherSiteInPlace(rehearsal);
  await mistakesOfTheBackend(rehearsal);
}

/** Runs it as the guide says, against nginx on the port `https`. Resolves to its output and its exit status. */
function check({ binary, directory, ports, paths, envFile }, { https = ports.https, variables = {}, gameEnvFile = paths.envFile } = {}) {
  const site = `https://localhost:${https}`;
  const args = ['check', '--url', `wss://localhost:${https}/ws`, '--api', `${site}/api`, '--ca-file', join(directory, 'ca.pem'),
    // The port is the test's. A site in place of another has the origin that the other had.
    '--origin', `https://localhost:${ports.https}`,
    '--env-file', envFile, '--game-route', `${site}/api/ping`, '--game-webhook', `${site}/webhook`, '--game-env-file', gameEnvFile];
  const env = { APP_ENV: 'production', DATA_DIR: join(directory, 'none'), ...variables };
  return new Promise((resolve) => {
    execFile(binary, args, { env, timeout: 60_000 }, (error, stdout, stderr) => resolve({ out: stdout + stderr, status: error?.code ?? 0 }));
  });
}

/** Each of `lines`, a start and a word that must follow in the line or under it, is in the output. */
function says({ out }, fault, lines) {
  const entries = out.split(/\n(?=\S)/);
  for (const [start, ...words] of lines) {
    const found = entries.some((entry) => entry.startsWith(start) && words.every((word) => entry.includes(word)));
    ok(found, `check, ${fault}: ${start} … ${words.join(' … ')}`, out);
  }
}

async function allIsWell(rehearsal) {
  const { origins, ports } = rehearsal.facts;
  const result = await check(rehearsal.facts);
  says(result, 'all is well', [
    ['ok    the game answers the ticket route', '401 Не авторизован'],
    [`ok    wss://localhost:${ports.https}/ws opens for player 1`],
    ['ok    a push reaches the second player'],
    [`ok    a page of "${origins[1]}" may ask for a ticket`],
    [`ok    a page of "${origins[1]}" may open a WebSocket`],
    [`ok    the game answers ${origins[0]}/api/ping`, 'HTTP 200'],
    [`ok    the game answers Telegram at ${origins[0]}/webhook`, 'HTTP 200'],
    ['ok    PHP reads '],
    ['ok    a ticket of another issuer does not meet the hub', 'the old process answers invalid_ticket'],
    ['ok    what the hub has counted since its start', 'no mistake'],
    ['everything works'],
  ]);
  equal([result.status, /^(FAIL|warn)/m.test(result.out)], [0, false], 'check, all is well: nothing fails, nothing is doubted');
}

/** Fault 5: the hub would let the page in, and the game's API does not let it ask. */
async function anOriginThatGetsNoTicket(rehearsal) {
  const { origins } = rehearsal.facts;
  const result = await check(rehearsal.facts, { variables: { WEBAPP_URL: [...origins, 'https://third.test'].join(',') } });
  says(result, 'another origin', [
    ['FAIL  a page of "https://third.test" may ask for a ticket', 'it allows', 'Access-Control-Allow-Origin'],
    ['FAIL  a page of "https://third.test" may open a WebSocket', '403', 'WEBAPP_URL'],
  ]);
  equal(result.status, 1, 'check, another origin: fails');
}

/** Fault 2: the game takes 300 as 3600, the hub takes it as it is. */
async function pagesThatGetNoTicket(rehearsal) {
  const result = await check(rehearsal.facts, { variables: { INIT_DATA_TTL_SECONDS: '300' } });
  says(result, 'a short life of initData', [['warn  INIT_DATA_TTL_SECONDS is 300', 'no ticket for its next duel', 'IssueTicket']]);
}

/** Fault 3: the rules of the check are PHP's own, for the files that we ship and for lines of all kinds. */
async function envFilesThatPhpRefuses({ facts }) {
  const texts = [readFileSync(EXAMPLE, 'utf8'), readFileSync(facts.envFile, 'utf8'), ...LINES.map((line) => `B=1\n${line}\nC=2\n`)];
  const files = texts.map((text, nth) => {
    const file = join(facts.directory, `tried-${nth}.env`);
    writeFileSync(file, text);
    return file;
  });
  const php = await output('php', ['-r', 'foreach (array_slice($argv, 1) as $f) echo @parse_ini_file($f) === false ? "FAIL" : "ok", "\n";', ...files]);
  for (const [nth, takes] of php.trim().split('\n').entries()) {
    const { out } = await check(facts, { https: facts.ports.nobody, gameEnvFile: files[nth] });
    const said = out.split('\n').find((line) => line.includes('PHP reads'));
    // PHP takes this one, and reads something else than the hub does.
    const expected = texts[nth].includes('A=a;b') ? 'FAIL' : takes;
    ok(said?.startsWith(expected), `check: ${JSON.stringify(texts[nth].slice(0, 40))} is ${takes} to PHP`, said);
  }
  const own = await output('php', ['-r', 'echo json_encode(parse_ini_file($argv[1]));', facts.envFile]);
  const lines = texts[1].split('\n').filter((line) => /^[A-Z]/.test(line));
  equal(JSON.parse(own), Object.fromEntries(lines.map((line) => line.split(/=(.*)/).slice(0, 2))), "PHP reads the hub's own env file as the hub does");
}

function output(program, args) {
  return new Promise((resolve, reject) => {
    execFile(program, args, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });
}

/** Fault 3 again: one env file for the game and the hub, with a comment of the example in it. */
async function anEnvFileForBoth({ facts }) {
  const envFile = join(facts.directory, 'for-both.env');
  writeFileSync(envFile, `${readFileSync(facts.envFile, 'utf8')}# (hub)\nDB_HOST=127.0.0.1\n`);
  const result = await check({ ...facts, envFile });
  says(result, 'an env file for both', [[`warn  ${envFile}`, 'it has DB_HOST', 'parse_ini_file', 'an env file of its own']]);
}

/** Fault 4 the other way round: tickets of the hub meet the old process. */
async function aLocationThatWins({ facts, site }) {
  site.ownLocationWins(true);
  await site.reload();
  const result = await check(facts);
  says(result, 'a location that wins', [[`FAIL  wss://localhost:${facts.ports.https}/ws opens`, 'another process answers', 'location = /ws']]);
  site.ownLocationWins(false);
  await site.reload();
}

/** Faults 1, 4 and 6: nginx.conf in place of the game's site. The API and the webhook are gone, and old tickets meet the hub. */
async function anotherSiteInPlace({ facts }) {
  const directory = join(facts.directory, 'another-site');
  mkdirSync(directory);
  for (const name of ['fullchain.pem', 'privkey.pem']) copyFileSync(join(facts.directory, name), join(directory, name));
  const [http, https] = await freePorts(2);
  await startNginx({
    directory, domain: 'localhost', http, https, webRoot: facts.paths.webApp,
    hub: `127.0.0.1:${facts.ports.hub}`, backend: `127.0.0.1:${facts.ports.nobody}`,
  });
  const result = await check(facts, { https });
  says(result, 'nginx.conf in place of the site', [
    ['FAIL  the game answers https://localhost', 'HTTP 502', "the game's own site must stay"],
    ['FAIL  the game answers Telegram', 'HTTP 405', "the game's own site must stay"],
    ['FAIL  the ticket API answers participants', 'TELEGRAM_BOT_TOKEN is not set', 'calls IssueTicket'],
    ['FAIL  a ticket of another issuer does not meet the hub', 'the hub answers invalid_ticket', 'duelhub-http.conf'],
    ['warn  what the hub has counted', 'duels that nobody has declared', 'OpenDuel'],
  ]);
  equal(result.status, 1, 'check, nginx.conf in place of the site: fails');
}

/** Fault 7, as far as it can be seen from outside: what the hub refused, by kind. */
async function mistakesOfTheBackend(rehearsal) {
  const duelId = 4_000_000;
  await rehearsal.call('PushEvent', { duelId, payloadJson: '[]' });
  await rehearsal.call('CloseDuel', { duelId, status: 'DUEL_STATUS_CANCELLED' });
  await rehearsal.call('CloseDuel', { duelId, status: 'DUEL_STATUS_FINISHED' });
  await rehearsal.call('PushEvent', { duelId, payload: { status: 'waiting' } });
  await rehearsal.call('IssueTicket', { duelId, userId: 1 });
  const result = await check(rehearsal.facts);
  says(result, 'mistakes of the backend', [
    ['warn  what the hub has counted', '1 pushes were malformed', '(object)'],
    ['warn  what the hub has counted', '1 pushes went to a duel that is closed', 'reopen'],
    ['warn  what the hub has counted', '1 tickets were asked for a duel that is closed', 'used before'],
    ['warn  what the hub has counted', '1 duels were closed again', 'ends once'],
    ['everything works'],
  ]);
}
