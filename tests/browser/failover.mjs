// The newcomer's page on a hub whose Redis is killed and starts again with everything: players go on in a new epoch, and what
// they miss after that they still recover.
// Arguments: the hub's binary, an empty directory.

import { once } from 'node:events';

import { startBrowser } from './lib/browser.mjs';
import { equal, ok, part, until } from './lib/check.mjs';
import { startHub } from './lib/hub.mjs';
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
  for (const phone of [ada, linus]) await phone.untilText('quiz', 'Round 1');
  const [epoch, seq] = (await ada.text('position')).split(':');

  redis.kill('SIGKILL');
  await once(redis, 'exit');
  await until('not ready', async () => !(await isReady()));
  startRedis();
  await until('ready again', isReady);
  for (const phone of [ada, linus]) {
    await phone.untilText('recovered', 'yes');
    await until('the position is of a new epoch', async () => !(await phone.text('position')).startsWith(epoch));
  }
  await page.getByTestId('push-next').click();
  for (const phone of [ada, linus]) await phone.untilText('position', `:${Number(seq) + 1}`);

  await linus.part('network').click();
  await linus.untilState('offline');
  await page.getByTestId('push-next').click();
  await ada.untilText('quiz', 'Round 3');
  await linus.part('network').click();
  await linus.untilState('online');
  equal(await linus.text('recovered'), 'yes', 'what is missed in the new epoch is recovered');
  await linus.untilText('position', await ada.text('position'));
  const replayed = (await linus.frames()).filter(({ kind }) => kind === 'replayed');
  equal(replayed.length, 1, 'the one that was missed is replayed');
  const states = [ada, linus].map((phone) => phone.frames());
  ok((await Promise.all(states)).flat().filter(({ kind }) => kind === 'state').length === 2,
    'nobody had to start from the state again');
});
