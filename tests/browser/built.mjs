// The newcomer's page, built by Vite and served by nginx as a WebApp, with the real ticket API.
// Arguments: the hub's binary, an empty directory, where to put the screenshots.

import { renameSync } from 'node:fs';
import { join } from 'node:path';

import { complaintsOf } from './lib/browser.mjs';
import { buildPage } from './lib/build.mjs';
import { equal, ok, part } from './lib/check.mjs';
import { Ledger } from './lib/ledger.mjs';
import { Phone } from './lib/phone.mjs';
import { DOMAIN, startStack } from './lib/stack.mjs';
import { initDataOf } from './lib/telegram.mjs';

const DUEL = 9;
const PLAYERS = [{ user_id: 301, telegram_id: 930001 }, { user_id: 302, telegram_id: 930002 }];
const [binary, directory, pictures] = process.argv.slice(2);

await part('the built page behind nginx', async () => {
  const webRoot = join(directory, 'www');
  const stack = await startStack({ binary, directory, webRoot });
  // Built only now, because only now the port is known.
  renameSync(buildPage(directory, { VITE_API_URL: '/api', VITE_WS_URL: `${stack.wsOrigin}/ws` }), webRoot);
  await stack.call('OpenDuel', { duel_id: DUEL, participants: PLAYERS });

  const page = await stack.browser.newPage();
  const complaints = complaintsOf(page);
  const [init1, init2] = PLAYERS.map(({ telegram_id }) => initDataOf(telegram_id));
  await page.goto(`${stack.originOf(DOMAIN)}/#${new URLSearchParams({ init1, init2, duel: DUEL })}`);
  const phones = [new Phone(page, 1), new Phone(page, 2)];
  await bothOnline(page, phones);
  await anEvent(stack, page, phones);
  if (pictures) await page.screenshot({ path: join(pictures, 'demo-built.png') });
  await theEnd(stack, phones);
  await cached(stack, page);
  equal(complaints, [], 'the page has nothing to complain about');
});

async function bothOnline(page, phones) {
  for (const [index, phone] of phones.entries()) {
    await phone.untilState('online');
    await phone.untilText('id', `user ${PLAYERS[index].user_id}`);
    await phone.untilText('presence', 'is online');
  }
  for (const part of ['#backend', '#guide', '#docs']) {
    equal(await page.locator(part).isHidden(), true, `${part}: in production nobody pushes from a page`);
  }
}

async function anEvent({ call }, page, phones) {
  const payload = { round: 1, question: 'Сколько будет дважды два?', options: ['3', '4', '5', '22'], scores: {} };
  const pushed = await call('PushEvent', { duel_id: DUEL, payload_json: JSON.stringify(payload) });
  equal(pushed.connections, 2, 'the event is handed to both phones');
  for (const phone of phones) {
    await phone.untilText('quiz', payload.question);
    equal(await phone.options().allTextContents(), payload.options, 'the options of the real backend');
    await phone.untilSeq(1);
  }
  const row = await new Ledger(page).untilRow(1, 'both have it', ({ players }) => players.every(({ kind }) => kind === 'live'));
  equal(row.name, 'Question 1', 'the log has it');
}

async function theEnd({ call }, phones) {
  const last_event = { payload_json: JSON.stringify({ finished: true, scores: { 301: 3, 302: 1 } }) };
  await call('CloseDuel', { duel_id: DUEL, status: 'DUEL_STATUS_FINISHED', last_event });
  for (const [phone, words] of [[phones[0], 'You won'], [phones[1], 'You lost']]) {
    await phone.untilText('quiz', words);
    await phone.untilState('closed');
  }
}

async function cached({ get }, page) {
  const { headers } = await get('/');
  equal(headers['cache-control'], 'no-cache', 'index.html is asked for anew');
  // What the built page consists of.
  const assets = await page.locator('script[src], link[rel=stylesheet]').evaluateAll((elements) =>
    elements.map((element) => new URL(element.src ?? element.href).pathname));
  equal(assets.length, 2, 'one script and one style sheet');
  for (const asset of assets) {
    const { status, headers } = await get(asset);
    ok(/^\/assets\/.*-[\w-]+\.(js|css)$/.test(asset), `${asset}: a name that changes with its content`);
    equal([status, headers['cache-control']], [200, 'max-age=31536000'], `${asset}: kept for a year`);
  }
}
