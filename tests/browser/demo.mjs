// The newcomer's page, of a hub that was started without any configuration.
// Arguments: the hub's binary, an empty directory, where to put the screenshots.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { complaintsOf, startBrowser } from './lib/browser.mjs';
import { equal, ok, part, until } from './lib/check.mjs';
import { startHub } from './lib/hub.mjs';
import { Phone } from './lib/phone.mjs';
import { venvBin } from './lib/tools.mjs';

const WIDE = { width: 1280, height: 860 };
const MEDIUM = { width: 900, height: 860 };
const NARROW = { width: 390, height: 844 };
const [binary, directory, pictures] = process.argv.slice(2);

await part("the newcomer's page", async () => {
  const hub = await startHub(binary, directory);
  const browser = await startBrowser();
  const page = await browser.newPage({ viewport: WIDE, colorScheme: 'light' });
  const complaints = complaintsOf(page);
  await page.goto(`http://${hub.edge}/demo/`);
  const phones = [new Phone(page, 1), new Phone(page, 2)];
  const press = (id) => page.getByTestId(id).click();

  await twoPlayers(page, phones);
  await answers(press, phones);
  await fromTheTerminal(page, phones);
  await theNetworkIsDropped(press, phones);
  await screenshots(page);
  await theEnd(page, press, phones);
  await anotherDuel(page, press, phones);
  equal(complaints, [], 'the page has nothing to complain about');
});

async function twoPlayers(page, phones) {
  for (const [index, phone] of phones.entries()) {
    await phone.untilState('online');
    await phone.untilText('presence', `${['Linus', 'Ada'][index]} is online`);
    await phone.untilText('quiz', 'Round 1');
    equal(await phone.text('recovered'), 'fresh', 'a first connection is fresh');
    const types = (await phone.frames()).map(({ type, kind }) => [type, kind].filter(Boolean).join(' '));
    equal(types.slice(0, 2), ['connected', 'duel_update state'], 'the present state follows the welcome');
  }
  equal(await page.getByTestId('duel').textContent(), ' · duel 77', 'the first page has the duel of the printed line');
}

async function answers(press, [ada, linus]) {
  await ada.options().first().click();
  await linus.untilText('quiz', 'Ada has answered.');
  equal(await linus.options().and(linus.part('quiz').locator('[data-mark]')).count(), 0,
    'who has not answered is not told what is right');
  ok((await ada.part('quiz').locator('[data-mark="right"]').count()) === 1, 'who has answered is told what is right');

  await press('push-answer-2');
  await linus.part('quiz').locator('[data-mark="right"]').waitFor();
  await ada.untilText('quiz', 'Linus has answered.');
  await press('push-next');
  for (const phone of [ada, linus]) {
    await phone.untilText('quiz', 'Round 2');
    ok(/^\d+\.\d ms$/.test(await phone.text('latency')), 'the latency of the last event is shown');
    ok(/^\d+\.\d ms$/.test(await phone.text('median')), 'the median latency is shown');
  }
}

/** Runs the line on the page as a newcomer would: pasted into a shell. */
async function fromTheTerminal(page, phones) {
  const line = await page.getByTestId('grpcurl').textContent();
  const env = { ...process.env, PATH: `${venvBin}:${process.env.PATH}` };
  const { stdout } = await promisify(execFile)('bash', ['-c', line], { env, timeout: 15_000 });
  const { position, connections } = JSON.parse(stdout);
  equal(connections, 2, 'the pasted line reaches both phones');
  for (const phone of phones) {
    await phone.untilText('quiz', 'Hello from the terminal');
    await phone.untilText('position', `${position.epoch}:${position.seq}`);
  }
}

async function theNetworkIsDropped(press, [ada, linus]) {
  const before = Number((await linus.text('position')).split(':')[1]);
  await linus.part('network').click();
  await linus.untilState('offline');
  await ada.untilText('presence', 'Linus is offline');
  for (const _ of [1, 2]) await press('push-next');
  await ada.options().first().click();
  await ada.untilText('position', `:${before + 3}`);
  equal(await linus.text('position'), await positionAt(ada, before), 'a phone without a network stays where it was');

  await linus.part('network').click();
  await linus.untilState('online');
  await linus.untilText('recovered', 'yes');
  await linus.untilText('position', await ada.text('position'));
  const replayed = (await linus.frames()).filter(({ kind }) => kind === 'replayed');
  const seqs = replayed.map(({ text }) => JSON.parse(text.match(/^\{"seq":(\d+)/)[1]));
  equal(seqs, [before + 1, before + 2, before + 3], 'what was missed is replayed, in order, each once');
  await linus.untilText('quiz', 'Round 4');
  await linus.untilText('quiz', 'Ada has answered.');
  await ada.untilText('presence', 'Linus is online');
}

async function positionAt(phone, seq) {
  return `${(await phone.text('position')).split(':')[0]}:${seq}`;
}

async function screenshots(page) {
  const looks = [
    ['demo', WIDE, 'light'],
    ['demo-dark', WIDE, 'dark'],
    ['demo-medium', MEDIUM, 'light'],
    ['demo-narrow', NARROW, 'light'],
    ['demo-narrow-dark', NARROW, 'dark'],
  ];
  await page.mouse.move(0, 0); // no button is hovered
  for (const [name, size, colorScheme] of looks) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await settled(page);
    await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: size !== WIDE });
    await fits(page, name);
  }
  await page.setViewportSize(WIDE);
}

/** Waits for the transitions that a change of looks sets off. */
function settled(page) {
  return page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)).then(() => {}));
}

async function fits(page, what) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  ok(content <= window, `${what}: nothing sticks out to the right`, `${content} > ${window}`);
}

async function theEnd(page, press, phones) {
  await press('push-finish');
  const results = [];
  for (const phone of phones) {
    await phone.untilState('closed');
    await phone.untilText('quiz', 'Finished');
    equal(await phone.part('network').isDisabled(), true, 'a closed duel has no network to bring back');
    results.push((await phone.part('quiz').locator('.final').textContent()).split(' : '));
    const types = (await phone.frames()).slice(-2).map(({ type }) => type);
    equal(types, ['duel_update', 'duel_closed'], 'the result, then the end');
  }
  equal(results[1], results[0].toReversed(), 'both see one result, each from their side');
  equal(await page.getByTestId('push-next').isDisabled(), true, 'nothing can be pushed any more');
}

async function anotherDuel(page, press, phones) {
  await press('new-duel');
  await until('the new duel has another id', async () => (await page.getByTestId('duel').textContent()) !== ' · duel 77');
  for (const phone of phones) {
    await phone.untilState('online');
    await phone.untilText('quiz', 'Round 1');
  }
}
