// The newcomer's page on a hub whose Redis is killed and starts again with everything: players go on in a new epoch, and what
// they miss after that they still recover.
// Arguments: the hub's binary, an empty directory.

import { once } from 'node:events';

import { startBrowser } from './lib/browser.mjs';
import { equal, part, until } from './lib/check.mjs';
import { startHub } from './lib/hub.mjs';
import { Ledger } from './lib/ledger.mjs';
import { Phone } from './lib/phone.mjs';
import { freePorts } from './lib/ports.mjs';
import { start } from './lib/processes.mjs';

const [binary, directory] = process.argv.slice(2);

await part('Redis starts again', async () => {
  const [port] = await freePorts(1);
  const startRedis = () =>
    start('redis-server', ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'yes', '--appendfsync', 'always'],
      { log: `${directory}/redis.log`, cwd: directory, env: process.env });
  const redis = startRedis();
  const hub = await startHub(binary, directory,
    { ENGINE: 'redis', REDIS_URL: `redis://127.0.0.1:${port}`, WEBSOCKET_DRAIN_SECONDS: '1' });
  const isReady = async () => (await fetch(`http://${hub.admin}/readyz`)).ok;
  await until('ready', isReady);
  const browser = await startBrowser();
  const page = await browser.newPage();
  await page.goto(`http://${hub.edge}/demo/`);
  const [ada, linus] = [new Phone(page, 1), new Phone(page, 2)];
  const ledger = new Ledger(page);
  for (const phone of [ada, linus]) await phone.untilText('quiz', 'Question 1');
  const { seq, epoch } = await ledger.untilRow(1, 'it is answered', (row) => row.epoch);

  redis.kill('SIGKILL');
  await once(redis, 'exit');
  await until('not ready', async () => !(await isReady()));
  startRedis();
  await until('ready again', isReady);
  for (const phone of [ada, linus]) await until('recovered', async () => (await phone.recovered()) === true);
  await page.getByTestId('push-next').click();
  for (const phone of [ada, linus]) await phone.untilSeq(seq + 1);
  await ledger.untilRow(seq + 1, 'the position is of a new epoch', (row) => row.epoch && row.epoch !== epoch);

  await linus.part('network').click();
  await linus.untilState('waiting');
  await page.getByTestId('push-next').click();
  await ada.untilText('quiz', 'Question 3');
  await linus.part('network').click();
  await linus.untilState('online');
  equal(await linus.recovered(), true, 'what is missed in the new epoch is recovered');
  await linus.untilSeq(await ada.seq());
  const kinds = (await ledger.rows()).map(({ players }) => players.map(({ kind }) => kind));
  equal(kinds, [['state', 'state'], ['live', 'live'], ['live', 'replayed']], 'nobody had to start from the state again');
});
