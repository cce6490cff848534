// The operators' console, while a load passes through the hub, when the hub is killed, and where it wants the token.
// Arguments: the hub's binary, an empty directory, where to put the screenshots.

import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';

import { violationsOf } from './lib/axe.mjs';
import { complaintsOf, startBrowser } from './lib/browser.mjs';
import { equal, ok, part, until } from './lib/check.mjs';
import { startHub } from './lib/hub.mjs';
import { start } from './lib/processes.mjs';

const WIDE = { width: 1280, height: 860 };
const NARROW = { width: 390, height: 844 };
const LOOKS = [['', WIDE, 'light'], ['-dark', WIDE, 'dark'], ['-narrow', NARROW, 'light'], ['-narrow-dark', NARROW, 'dark']];
const TOKEN = 'a-control-token-for-the-console';
const DUELS = 60;
const [binary, directory, pictures] = process.argv.slice(2);

await part("the operators' console", async () => {
  const hub = await startHub(binary, directory, { CONTROL_TOKEN: TOKEN });
  startLoad(hub);
  const browser = await startBrowser();
  const page = await browser.newPage({ viewport: WIDE, colorScheme: 'light' });
  const complaints = complaintsOf(page);
  await page.goto(`http://${hub.admin}/`);
  await theHistory(page);
  await theChartsMove(page);
  await reasonsHaveWords(page, hub);
  await duelsInPages(page);
  await aDuelsLog(page, hub);
  await nothingIsStored(page);
  equal(complaints.filter((text) => !text.includes('404')), [], 'the page has nothing to complain about');
  await theHubIsKilled(page, hub);
  await theToken(browser);
});

/** Duels of two players, and pushes to all of them. */
function startLoad({ edge, control }) {
  const env = { CONTROL_PORT: control.split(':')[1], CONTROL_TOKEN: TOKEN };
  const args = ['bench', 'duels', '--url', `ws://${edge}/ws`, '--duels', `${DUELS}`, '--seconds', '120', '--runs', '1'];
  start(binary, args, { log: join(directory, 'load.log'), env, cwd: directory });
}

function link(page) {
  return page.getByTestId('link').textContent();
}

function chart(page, id) {
  return page.getByTestId(`chart-${id}`);
}

/** The module that keeps the samples, by itself. */
async function theHistory(page) {
  const said = await page.evaluate(async () => {
    const { History, quantile } = await import('./history.js');
    const bucket = (le) => `duelhub_push_duration_seconds_bucket{le="${le}"}`;
    const node = (second, pushes, uptime = second) => ({
      at_ms: 1000 * second, uptime_ms: 1000 * uptime, health: {},
      samples: { 'duelhub_pushes_total{kind="new"}': pushes, [bucket('0.001')]: pushes / 2, [bucket('+Inf')]: pushes,
        'duelhub_connections_closed_total{reason="lost"}': pushes },
    });
    const history = new History();
    for (const [second, pushes, uptime] of [[100, 0], [101, 10], [103, 50], [110, 400], [111, 404], [112, 4, 1], [113, 5, 2]]) {
      history.add(node(second, pushes, uptime));
    }
    const rates = history.rows.map((row) => (row.gap ? 'gap' : row.pushes ?? null));
    const { p99 } = history.rows[1];
    const lost = history.counted('closed')[0];
    for (let second = 114; second < 900; second += 1) history.add(node(second, 5, second));
    const long = history.rows.length;
    history.add(node(50, 5, 1000));
    return { rates, p99, lost, long, afterStepBack: history.rows.length,
      median: quantile(0.5, [[0.001, 10], [0.002, 30], [Infinity, 30]]), none: quantile(0.5, [[0.001, 0], [Infinity, 0]]) };
  });
  equal(said.rates, [null, 10, 20, 'gap', null, 4, 'gap', null, 1],
    'a rate is between two samples that follow each other; missing samples and a restart are gaps');
  equal(said.p99, 1, 'what is beyond the last bucket took at least so many milliseconds');
  equal(said.lost, { word: 'lost', inWindow: 55, total: 5 }, 'what was counted in the window, and since the start');
  equal(said.long, 601, 'ten minutes are kept');
  equal(said.afterStepBack, 1, 'a clock that was set back begins anew');
  equal([said.median, said.none], [1.25, null], 'a quantile is within its bucket, and nothing without a push');
}

async function theChartsMove(page) {
  await until('the page is live', async () => (await link(page)) === 'Live');
  await until('the node is ready', async () => (await page.getByTestId('health').textContent()) === 'Ready');
  const shown = (id) => chart(page, id).locator('.value').allTextContents();
  await until('pushes and deliveries pass', async () => (await shown('rates')).every((value) => /^[1-9][\d,.]*\/s$/.test(value)));
  await until('p50, p99 and the probe', async () => (await shown('latency')).every((value) => /^[\d.,]+ (µs|ms|s)$/.test(value)));
  await until('two connections for each duel', async () => (await shown('connections'))[0] === `${2 * DUELS}`);
  ok(/^[\d.]+ MiB$/.test((await shown('memory'))[0]), 'memory has a unit');
  for (const id of ['rates', 'latency', 'cpu', 'commits']) {
    const canvas = chart(page, id).locator('canvas');
    const drawn = () => canvas.evaluate((element) => element.toDataURL());
    const before = await drawn();
    await until(`the chart ${id} moves`, async () => (await drawn()) !== before);
  }
  await chart(page, 'rates').locator('.u-over').hover({ position: { x: 215, y: 40 } });
  await until('under the crosshair stands its time', async () => /^\d\d:\d\d:\d\d$/.test(await chart(page, 'cpu').locator('h3').getAttribute('data-time')));
  await page.mouse.move(0, 0);
  await theKeyboard(page);
}

/** Every sample can be read without a mouse, and what is first can be skipped. */
async function theKeyboard(page) {
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('Tab');
  equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content', 'the first key leads past the top');
  await page.keyboard.press('Enter');
  await until('the content has the focus', () => page.evaluate(() => document.activeElement.id === 'content'));
  await page.keyboard.press('Tab');
  const slider = chart(page, 'connections').getByRole('slider');
  equal(await slider.evaluate((element) => element === document.activeElement), true, 'the first chart is next');
  for (const _ of [1, 2]) await page.keyboard.press('ArrowLeft');
  const said = () => slider.getAttribute('aria-valuetext');
  ok(/^\d\d:\d\d:\d\d: Players and spectators \d+$/.test(await said()), 'a sample of the past is read', await said());
  const time = (await said()).slice(0, 8);
  const other = () => chart(page, 'rates').locator('h3').getAttribute('data-time');
  equal(await other(), time, 'in every chart');
  await until('time passes', async () => (await slider.getAttribute('aria-valuemax')) > (await slider.getAttribute('aria-valuenow')) + 3);
  equal((await said()).slice(0, 8), time, 'and stays chosen as time passes');
  await page.keyboard.press('Tab');
  await page.evaluate(() => document.activeElement.blur());
}

async function reasonsHaveWords(page, { edge }) {
  const refused = chart(page, 'refused');
  equal(await refused.getByText('None since the hub started').count(), 1, 'nobody was refused');
  await comeWithoutATicket(edge);
  await refused.getByRole('rowheader', { name: 'Ticket not valid' }).waitFor();
  equal(await refused.getByRole('rowheader').getAttribute('title'), 'invalid_ticket', 'the hub’s own word is at hand');
  const everything = await page.locator('body').innerText();
  equal(everything.match(/\b[a-z]+_[a-z_]+\b/g), null, 'nobody has to read the hub’s own words');
  await looks(page, 'console', 'the overview');
}

/** A handshake that is answered, so that the client can be told that it is refused. */
async function comeWithoutATicket(edge) {
  const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' };
  const [, socket] = await once(get(`http://${edge}/ws?ticket=x`, { headers }), 'upgrade');
  socket.destroy();
}

async function duelsInPages(page) {
  await page.getByRole('link', { name: 'Duels' }).click();
  const rows = page.getByTestId('duel-rows').getByRole('row');
  await until('a page of 50', async () => (await rows.count()) === 50);
  ok(/\d/.test(await rows.first().locator('td').nth(2).textContent()), 'who is online is named');
  await page.getByRole('button', { name: 'Next' }).click();
  await until('the rest', async () => (await rows.count()) === DUELS - 50);
  equal(await page.getByRole('button', { name: 'Next' }).isDisabled(), true, 'there is no further page');
  await page.getByRole('button', { name: 'Previous' }).click();
  await until('the first page again', async () => (await rows.count()) === 50);
  await page.getByLabel('Show').selectOption('Finished');
  await page.getByText('There are none.').waitFor();
  await page.getByLabel('Show').selectOption('All');
  await until('all of them', async () => (await rows.count()) === 50);
  await looks(page, 'console-duels', 'the duels');
  await page.getByLabel('Find a duel by its id').fill('999999');
  await page.keyboard.press('Enter');
  await page.getByText('There is no such duel, or no longer.').waitFor();
}

async function aDuelsLog(page, { control }) {
  const call = async (method, body) => {
    const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${TOKEN}` };
    const answer = await fetch(`http://${control}/duelhub.v1.ControlService/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
    ok(answer.ok, `${method} is answered`, await answer.clone().text());
  };
  const push = (type, fields = {}) => call('PushEvent', { duelId: 4242, type, payload: { round: 1 }, ...fields });
  await push('round_started');
  await page.goto(page.url().replace(/#.*/, '#duel/4242'));
  const log = page.getByTestId('log').getByRole('listitem');
  await until('the log has one event', async () => (await log.count()) === 1);
  await push('answer', { audience: { only: { userIds: [1, 2] } }, transient: true, views: [{ userId: 1, payload: { mine: true } }] });
  await push('score', { coalesceKey: 'score', audience: { players: true } });
  await until('the log grows', async () => (await log.count()) === 3);
  const said = await log.nth(1).innerText();
  for (const part of ['answer', 'to 1, 2', ' B', 'transient', '"round":1', 'View of 1']) ok(said.includes(part), `an event says ${part}`, said);
  await page.getByRole('button', { name: 'Pause' }).click();
  await call('CloseDuel', { duelId: 4242, status: 'DUEL_STATUS_FINISHED' });
  equal(await log.count(), 3, 'a paused log stands still');
  await page.getByRole('button', { name: 'Pause' }).click();
  await until('the end is the newest', async () => (await log.first().innerText()).includes('The duel ended: finished'));
  await looks(page, 'console-closed-duel', 'a duel that is over', false);

  await page.goto(page.url().replace(/#.*/, '#duel/7'));
  await until('two users are online', async () => (await page.getByTestId('duel-users').getByRole('row').count()) === 2);
  const newest = () => log.first().locator('.seq').textContent();
  const before = Number(await newest());
  await until('the log of a busy duel grows', async () => Number(await newest()) > before);
  await looks(page, 'console-duel', 'a duel');
}

async function nothingIsStored(page) {
  const stored = await page.evaluate(() => [localStorage.length, document.cookie]);
  equal(stored, [0, ''], 'the page stores nothing');
}

async function theHubIsKilled(page, hub) {
  await page.goto(page.url().replace(/#.*/, '#overview'));
  await until('the page is live', async () => (await link(page)) === 'Live');
  hub.child.kill('SIGKILL');
  const begun = Date.now();
  await page.getByTestId('alert').filter({ hasText: /^The hub has not answered since \d\d:\d\d:\d\d\./ }).waitFor();
  ok(Date.now() - begun < 2500, 'it is told at once that the hub is gone', `${Date.now() - begun} ms`);
  ok((await link(page)).startsWith('No answer'), 'and at the top');
  await until('for how long', async () => /^No answer for [2-9] s$/.test(await link(page)));
  equal(await page.getByTestId('health').textContent(), 'Unknown', 'nobody knows how it does now');
  await page.screenshot({ path: join(pictures, 'console-lost.png') });
  equal(await violationsOf(page), [], 'a lost hub: axe finds nothing');

  const [edge, control, admin] = [hub.edge, hub.control, hub.admin].map((address) => address.split(':')[1]);
  const ports = { WEBSOCKET_PORT: edge, CONTROL_PORT: control, ADMIN_PORT: admin };
  const again = await startHub(binary, directory, { ...ports, CONTROL_TOKEN: TOKEN });
  await until('it is back', async () => (await link(page)) === 'Live');
  equal(await page.getByTestId('alert').isHidden(), true, 'and nothing is wrong any more');
  await page.getByText(/^\d\d:\d\d:\d\d\s+The hub started$/).waitFor();
  again.child.kill('SIGTERM');
}

/** Beyond loopback, in development. */
async function theToken(browser) {
  const beyond = join(directory, 'beyond');
  mkdirSync(beyond);
  const hub = await startHub(binary, beyond, { ADMIN_HOST: '0.0.0.0', CONTROL_TOKEN: TOKEN, ENGINE: 'memory' });
  const context = await browser.newContext({ viewport: WIDE });
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${hub.admin.split(':')[1]}/console/`);
  const field = page.getByRole('textbox', { name: 'Control token' });
  await field.waitFor();
  await looks(page, 'console-token', 'the form for the token', false);
  await field.fill('not-the-token');
  await page.keyboard.press('Enter');
  await page.getByText('The hub does not accept this token.').waitFor();
  await field.fill(TOKEN);
  await page.keyboard.press('Enter');
  await until('the page is live', async () => (await link(page)) === 'Live');
  await page.getByTestId('chart-sessions').waitFor();
  const stored = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
  equal(stored, [0, 1, ''], 'the token is in the tab alone');
  ok(!page.url().includes(TOKEN), 'and not in the address');
  await page.reload();
  await until('a reload keeps it', async () => (await link(page)) === 'Live');
  await page.getByRole('button', { name: 'Forget the token' }).click();
  await field.waitFor();
}

/** Screenshots of a view, which fits into every window, and in which axe finds nothing. */
async function looks(page, name, what, pictured = true) {
  for (const [suffix, size, colorScheme] of LOOKS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await page.evaluate(() => new Promise((drawn) => { requestAnimationFrame(() => requestAnimationFrame(drawn)); }));
    await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)).then(() => {}));
    if (pictured) await page.screenshot({ path: join(pictures, `${name}${suffix}.png`), fullPage: name === 'console' });
    const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    ok(content <= window, `${what}${suffix}: nothing sticks out to the right`, `${content} > ${window}`);
    equal(await violationsOf(page), [], `${what}${suffix}: axe finds nothing`);
  }
  await page.setViewportSize(WIDE);
  await page.emulateMedia({ colorScheme: 'light' });
}
