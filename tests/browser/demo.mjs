// The newcomer's page, of a hub that was started without any configuration.
// Arguments: the hub's binary, an empty directory, where to put the screenshots.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { violationsOf } from './lib/axe.mjs';
import { complaintsOf, startBrowser } from './lib/browser.mjs';
import { changedOffScreen } from './lib/changes.mjs';
import { equal, ok, part, until } from './lib/check.mjs';
import { startHub } from './lib/hub.mjs';
import { Ledger } from './lib/ledger.mjs';
import { Phone } from './lib/phone.mjs';
import { paste } from './lib/shell.mjs';

const WIDE = { width: 1280, height: 800 };
const NARROW = { width: 390, height: 844 };
const LOOKS = [
  ['demo', WIDE, 'light'],
  ['demo-dark', WIDE, 'dark'],
  ['demo-narrow', NARROW, 'light'],
  ['demo-narrow-dark', NARROW, 'dark'],
];
const FORMS = ['curl', 'grpcurl', 'php'];
const MILLISECONDS = /^\d+(\.\d)?\sms$/;
const TOKEN = 'a token that no page is given';
const [binary, directory, pictures] = process.argv.slice(2);

await part("the newcomer's page", async () => {
  const hub = await startHub(binary, directory);
  const browser = await startBrowser();
  const open = async (edge, size = WIDE) => {
    const context = await browser.newContext({ viewport: size, colorScheme: 'light', permissions: ['clipboard-read', 'clipboard-write'] });
    const page = await context.newPage();
    const complaints = complaintsOf(page);
    // The root of a development hub leads to the page.
    await page.goto(`http://${edge}/`);
    return { page, complaints, phones: [new Phone(page, 1), new Phone(page, 2)], ledger: new Ledger(page), press: (id) => page.getByTestId(id).click() };
  };

  const desk = await open(hub.edge);
  equal(new URL(desk.page.url()).pathname, '/demo/', 'the root leads to the page');
  await twoPlayers(desk);
  await answers(desk);
  await fromTheTerminal(desk);
  await theNetworkIsCut(desk);
  await looks(desk.page, 'in the middle');
  await theEnd(desk);
  await looks(desk.page, 'after the end');
  await anotherDuel(desk);
  await theScene(desk, hub.control);
  await theEndIsMissed(desk);
  await anotherDuel(desk);
  await closedElsewhere(desk, hub.control);
  await readingOn(desk.page);
  equal(desk.complaints, [], 'the page has nothing to complain about');
  await desk.page.close();

  await byKeyboard(await open(hub.edge));
  await onAPhone(await open(hub.edge, NARROW));
  mkdirSync(join(directory, 'token'));
  await withAToken(open, await startHub(binary, join(directory, 'token'), { CONTROL_TOKEN: TOKEN }));
});

async function twoPlayers({ page, phones, ledger }) {
  for (const [index, phone] of phones.entries()) {
    await phone.untilState('online');
    await phone.untilText('state', 'Online');
    await phone.untilText('presence', `${['Linus', 'Ada'][index]} is online`);
    await phone.untilText('quiz', 'Question 1');
    equal(await phone.recovered(), null, 'a first connection has nothing to recover');
  }
  const row = await ledger.untilRow(1, 'both have it', ({ players }) => players.every(({ kind }) => kind === 'state'));
  equal([row.name, ...row.players.map(({ how }) => how)], ['Question 1', 'on joining', 'on joining'], 'they begin with the present state');
  equal(await page.getByTestId('duel').textContent(), 'Duel 77', 'the first page has the duel of the printed line');
  await weighed(page);
}

/** What the page weighs, and when it was ready for a press: for PERFORMANCE.md and whoever wonders. */
async function weighed(page) {
  const { bytes, files, ready } = await page.evaluate(() => {
    const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
    const own = entries.filter(({ name }) => !name.includes('/demo/api/'));
    return { bytes: own.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0), files: own.length, ready: performance.now() };
  });
  console.log(`   ${files} files of ${bytes} bytes; both players online after at most ${Math.round(ready)} ms`);
  ok(bytes < 120_000, 'the page is small', `${bytes} bytes`);
}

async function answers({ press, phones: [ada, linus], ledger }) {
  await ada.options().first().click();
  await linus.untilText('quiz', 'Ada has answered.');
  equal(await linus.part('quiz').locator('[data-mark]').count(), 0, 'who has not answered is not told what is right');
  ok((await ada.part('quiz').locator('[data-mark="right"]').count()) === 1, 'who has answered is told what is right');
  const row = await ledger.untilRow(2, 'is answered', ({ answered }) => MILLISECONDS.test(answered));
  equal([row.name, ...row.players.map(({ saw }) => saw.split(':')[0])], ['Ada answered', 'own answer', 'that Ada answered'],
    'one event, and each player sees their own view of it');

  await linus.options().nth(1).click();
  await linus.part('quiz').locator('[data-mark="right"]').waitFor();
  await ada.untilText('quiz', 'Linus has answered.');
  await press('push-next');
  for (const phone of [ada, linus]) await phone.untilText('quiz', 'Question 2');
  const { players } = await ledger.untilRow(4, 'both have it, and it is answered', (row) =>
    MILLISECONDS.test(row.answered) && row.players.every(({ ms }) => MILLISECONDS.test(ms)));
  equal(players.map(({ kind, how }) => `${kind}${how}`), ['live', 'live'], 'it came live, which needs no word');
}

/** Runs the lines on the page as a newcomer would: pasted into a shell. */
async function fromTheTerminal({ page, phones, ledger }) {
  let { seq } = (await ledger.rows()).at(-1);
  const sawOf = async (nth) => (await ledger.row(nth)).players.map(({ saw }) => saw);
  // The last press; then a row with a view of its own for each player; then what came out of the terminal itself.
  for (const [selected, like] of [[null, 4], [2, 2], [7, 4]]) {
    if (selected) await ledger.select(selected);
    ok((await page.getByTestId('call-title').textContent()).startsWith(selected ? `Event ${selected}` : 'Last press'), 'it says which call that is');
    for (const form of FORMS) {
      await page.getByTestId(`as-${form}`).check({ force: true });
      const line = await page.getByTestId('line').textContent();
      const { position, connections } = await paste(line);
      seq += 1;
      equal([Number(position.seq), connections], [seq, 2], `${form}: the pasted line reaches both players`);
      await ledger.untilRow(seq, 'both have it', ({ players, answered }) => answered === 'elsewhere' && players.every(({ kind }) => kind === 'live'));
      equal(await sawOf(seq), await sawOf(like), `${form}: they see what they saw of event ${like}`);
    }
  }
  for (const phone of phones) await phone.untilSeq(seq);
  await page.getByTestId('as-curl').check({ force: true });
  await page.getByTestId('copy').click();
  await page.getByTestId('copy').filter({ hasText: 'Copied' }).waitFor();
  equal(await page.evaluate(() => navigator.clipboard.readText()), await page.getByTestId('line').textContent(), 'the line is copied as it is shown');
}

async function theNetworkIsCut({ press, phones: [ada, linus], ledger, page }) {
  const before = await linus.seq();
  await linus.part('network').click();
  await linus.untilState('waiting');
  await linus.untilText('state', 'Connecting again');
  await until('it says when', async () => /^in \d+ s$/.test(await linus.text('countdown')));
  await ada.untilText('presence', 'Linus is away');
  for (const _ of [1, 2]) await press('push-next');
  await ada.options().first().click();
  await ada.untilSeq(before + 3);
  equal(await linus.seq(), before, 'a player without a network stays where he was');
  const missed = (await ledger.rows()).slice(-3);
  equal(missed.map(({ players }) => players.map(({ kind }) => kind)), Array(3).fill(['live', 'waiting']), 'the log says who has it, and who has not');
  // It tries again, and there is no network.
  await page.waitForFunction(() => document.querySelector('[data-testid="phone-2"] [data-testid="state"]').title.startsWith('waiting'));

  await linus.part('network').click();
  await linus.untilState('online');
  equal(await linus.recovered(), true, 'he comes back to where he was');
  await linus.untilSeq(before + 3);
  const replayed = (await ledger.rows()).filter(({ players }) => players[1].kind === 'replayed');
  equal(replayed.map(({ seq, players }) => [seq, players[1].how]), ['1st', '2nd', '3rd'].map((nth, index) => [before + 1 + index, `replayed ${nth}`]),
    'what was missed is replayed, in order, each once');
  equal(await ledger.notes(), ['network cut', 'back, complete'], 'the log says when he was away');
  await linus.untilText('quiz', 'Question 4');
  await linus.untilText('quiz', 'Ada has answered.');
  await ada.untilText('presence', 'Linus is online');
  await until('every step of the first minute is done', async () =>
    (await page.getByTestId('guide').locator('[data-done="true"]').count()) === 5);
}

/** Linus, still without a network, misses the end, and gets it when he is back. */
async function theEndIsMissed({ press, phones: [ada, linus], ledger }) {
  await press('push-finish');
  await ada.untilState('closed');
  equal(await linus.state() === 'closed', false, 'who is away does not know of the end');
  await linus.part('network').click();
  await linus.untilState('closed');
  await linus.untilText('state', 'Duel is over');
  await linus.untilText('quiz', 'Result');
  const last = (await ledger.rows()).slice(-3).map(({ players }) => players[1].how);
  equal(last, ['replayed 1st', 'replayed 2nd', 'replayed 3rd'], 'what was missed, with the end, is replayed');
}

/** A duel that a terminal closes. */
async function closedElsewhere({ page, phones, ledger }, control) {
  const duelId = Number((await page.getByTestId('duel').textContent()).split(' ')[1]);
  const json = JSON.stringify({ duelId, status: 'DUEL_STATUS_CANCELLED' });
  await paste(`curl -s -H 'Content-Type: application/json' -d '${json}' http://${control}/duelhub.v1.ControlService/CloseDuel`);
  for (const phone of phones) await phone.untilState('closed');
  await ledger.untilRow(2, 'the end came from elsewhere', ({ name, answered }) => name === 'Duel is over' && answered === 'elsewhere');
  equal(await page.getByTestId('push-next').isDisabled(), true, 'nothing can be pushed any more');
  await ledger.select(2);
  for (const form of FORMS) {
    await page.getByTestId(`as-${form}`).check({ force: true });
    equal((await paste(await page.getByTestId('line').textContent())).duplicate, true, `${form}: the call that closed it may be pasted`);
  }
}

/** What the pictures show: a bit of everything. */
async function theScene({ page, press, phones: [ada, linus], ledger }, control) {
  const upTo = async (seq, ...phones) => {
    for (const phone of phones) await phone.untilSeq(seq);
    await ledger.untilRow(seq, 'is answered', ({ answered }) => answered);
  };
  const answer = (phone, word) => phone.options().filter({ hasText: word }).click();
  await answer(ada, 'Jupiter');
  await upTo(2, ada, linus);
  await linus.part('network').click();
  await linus.untilState('waiting');
  await press('push-next');
  await upTo(3, ada);
  await answer(ada, 'Two');
  await upTo(4, ada);
  await linus.part('network').click();
  await upTo(4, linus);
  await answer(linus, 'Three');
  await upTo(5, ada, linus);
  const duel = Number((await page.getByTestId('duel').textContent()).split(' ')[1]);
  await page.getByTestId('as-curl').check({ force: true });
  await paste(`curl -s -H 'Content-Type: application/json' -d '{"duelId":${duel},"payload":{"question":"Hello from the terminal"}}' http://${control}/duelhub.v1.ControlService/PushEvent`);
  await upTo(6, ada, linus);
  await linus.part('network').click();
  await linus.untilState('waiting');
  await press('push-next');
  await upTo(7, ada);
  await looks(page, 'while Linus is away', pictures);
}

/** Both widths, in light and in dark: nothing sticks out, nothing is out of reach, all of it is on one screen. */
async function looks(page, when, folder) {
  await page.mouse.move(0, 0); // no button is hovered
  for (const [name, size, colorScheme] of LOOKS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await settled(page);
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
    const content = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]);
    ok(content[0] <= size.width && content[1] <= size.height, `${name}, ${when}: one screen`, `${content}`);
    const links = await page.locator('#docs').evaluate(({ parentElement: bar }) => [bar.scrollWidth, bar.clientWidth]);
    ok(links[0] <= links[1], `${name}, ${when}: all links are there`, `${links}`);
    equal(await violationsOf(page), [], `${name}, ${when}: axe finds nothing`);
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(WIDE);
}

/** Waits for the transitions that a change of looks sets off. */
function settled(page) {
  return page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)).then(() => {}));
}

async function theEnd({ page, press, phones, ledger }) {
  await press('push-finish');
  const results = [];
  for (const phone of phones) {
    await phone.untilState('closed');
    await phone.untilText('state', 'Duel is over');
    await phone.untilText('quiz', 'Result');
    equal(await phone.part('network').isDisabled(), true, 'a closed duel has no network to bring back');
    results.push((await phone.part('quiz').locator('.final').textContent()).split(' : '));
  }
  equal(results[1], results[0].toReversed(), 'both see one result, each from their side');
  const names = (await ledger.rows()).slice(-2).map(({ name }) => name);
  equal(names, ['Result', 'Duel is over'], 'the result, then the end');
  equal(await page.getByTestId('push-next').isDisabled(), true, 'nothing can be pushed any more');
  for (const form of FORMS) {
    await page.getByTestId(`as-${form}`).check({ force: true });
    const answer = await paste(await page.getByTestId('line').textContent());
    equal(answer.duplicate, true, `${form}: the end may be pasted, and changes nothing`);
  }
}

/** Every link of the page, and of what it leads to, is there. */
async function readingOn(page) {
  const links = () => page.locator('a[href^="/demo"], a[href^="docs/"], main a[href]').evaluateAll((found) =>
    found.filter(({ origin }) => origin === location.origin).map(({ href }) => href));
  const start = page.url();
  const open = await links();
  const visited = new Set();
  while (open.length > 0) {
    const address = open.pop();
    const [file, fragment] = address.split('#');
    if (file === start || (visited.has(file) && !fragment)) continue;
    visited.add(file);
    await page.goto(address);
    await page.locator('main h1').first().waitFor();
    if (fragment) equal(await page.locator(`[id="${decodeURIComponent(fragment)}"]`).count(), 1, `${address}: its heading is there`);
    if (visited.size < 40 && !fragment) open.push(...(await links()).filter((link) => !visited.has(link)));
    visited.add(address);
  }
  ok(visited.size >= 6, 'there is something to read', `${visited.size}`);
  for (const [, size, colorScheme] of LOOKS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await page.goto(new URL('docs/README.md', start).href);
    await page.locator('main h1').first().waitFor();
    equal(await violationsOf(page), [], `the guide, ${size.width} px, ${colorScheme}: axe finds nothing`);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    ok(width <= size.width, 'the guide: nothing sticks out to the right', `${width} px`);
  }
  await page.screenshot({ path: join(pictures, 'demo-guide-narrow.png') });
}

async function anotherDuel({ page, press, phones, ledger }) {
  await press('new-duel');
  await until('the new duel has another id', async () => (await page.getByTestId('duel').textContent()) !== 'Duel 77');
  for (const phone of phones) {
    await phone.untilState('online');
    await phone.untilText('quiz', 'Question 1');
  }
  equal((await ledger.rows()).map(({ seq }) => seq), [1], 'its log begins anew');
}

/** Everything, without a pointer. */
async function byKeyboard({ page, phones: [ada, linus], ledger, complaints }) {
  for (const phone of [ada, linus]) await phone.untilState('online');
  const focused = () => page.evaluate(() => {
    const { activeElement: element } = document;
    return element.dataset.testid ?? (element.className || element.textContent);
  });
  const tabTo = (what) => until(`Tab leads to ${what}`, async () => {
    await page.keyboard.press('Tab');
    return (await focused()) === what;
  });
  await tabTo('push-next');
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  equal(outline, 'solid', 'one sees where the focus is');
  await page.keyboard.press('Enter');
  await ada.untilText('quiz', 'Question 2');
  equal(await focused(), 'push-next', 'the focus stays');

  await tabTo('as-curl');
  await page.keyboard.press('ArrowRight');
  ok((await page.getByTestId('line').textContent()).startsWith('grpcurl'), 'arrows choose the form of the call');
  await tabTo('copy');
  await tabTo('line');
  await tabTo('option');
  await page.keyboard.press('Space');
  await linus.untilText('quiz', 'Ada has answered.');
  equal(await focused(), 'quiz', 'the focus stays with the player who has answered');
  await tabTo('network');
  await page.keyboard.press('Enter');
  await ada.untilState('waiting');
  equal(await focused(), 'network', 'the focus stays on the network');
  await page.keyboard.press('Enter');
  await ada.untilState('online');
  await tabTo('rows');
  await tabTo('event');
  await page.keyboard.press('Enter');
  await page.getByTestId('call-title').filter({ hasText: 'Event 1' }).waitFor();
  equal((await ledger.rows()).length, 3, 'the log has an event for each');
  equal(complaints, [], 'the page has nothing to complain about');
  await page.close();
}

/** What a press changes is on the screen of a phone. */
async function onAPhone({ page, phones: [ada, linus], press, complaints }) {
  for (const phone of [ada, linus]) await phone.untilState('online');
  let seq = 1;
  const pushed = async (action) => {
    seq += 1;
    await action();
    for (const phone of [ada, linus]) if ((await phone.state()) === 'online') await phone.untilSeq(seq);
    await page.getByTestId('pushed').filter({ hasText: `Event ${seq}` }).waitFor();
  };
  const steps = {
    'the next question': () => pushed(() => press('push-next')),
    'an answer': () => pushed(() => ada.options().first().click()),
    'cutting the network': async () => {
      await linus.part('network').click();
      await linus.untilState('waiting');
    },
    'a question that Linus misses': () => pushed(() => press('push-next')),
    'another one': () => pushed(() => press('push-next')),
    'the network is back': async () => {
      await linus.part('network').click();
      await linus.untilSeq(seq);
    },
    'showing a call': () => page.getByTestId('rows').locator('.event').last().click(),
    'another form': () => page.getByTestId('as-php').check({ force: true }),
    'twenty questions': async () => {
      for (let nth = 0; nth < 20; nth += 1) await pushed(() => press('push-next'));
    },
    'the question after them': () => pushed(() => press('push-next')),
    'the end': async () => {
      seq += 1;
      await pushed(() => press('push-finish'));
      for (const phone of [ada, linus]) await phone.untilState('closed');
    },
  };
  for (const [what, step] of Object.entries(steps)) {
    const unseen = await changedOffScreen(page, step);
    // Of twenty, the oldest have left the log's box by its end.
    if (what !== 'twenty questions') equal(unseen, [], `390x844, ${what}: all that changes is on the screen`);
  }
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  ok(height <= NARROW.height, 'the page is one screen', `${height} px`);
  equal(complaints, [], 'the page has nothing to complain about');
  await page.close();
}

async function withAToken(open, hub) {
  const answers = [];
  const { page, phones, press, ledger } = await open(hub.edge);
  page.on('response', (response) => answers.push(response.text().catch(() => '')));
  await page.reload();
  for (const phone of phones) await phone.untilState('online');
  await press('push-next');
  await phones[0].untilSeq(2);
  for (const [nth, form] of FORMS.entries()) {
    await page.getByTestId(`as-${form}`).check({ force: true });
    const line = await page.getByTestId('line').textContent();
    ok(line.includes('CONTROL_TOKEN'), `${form}: the line names the variable of the token`);
    await paste(line, { CONTROL_TOKEN: TOKEN });
    await ledger.untilRow(3 + nth, 'it was pushed', () => true);
  }
  const texts = [...(await Promise.all(answers)), await page.content()];
  ok(texts.length > 10 && texts.every((text) => !text.includes(TOKEN)), 'the page is never given the token');
}
