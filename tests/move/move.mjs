// The move of a game to the hub, rehearsed as section 12 of the guide has it: shadow, canary, move, and the way back.
// Arguments: the hub's binary, an empty directory.

import { readFileSync } from 'node:fs';

import { equal, ok, part } from '../browser/lib/check.mjs';
import { checkFinds } from './lib/checks.mjs';
import { Duel } from './lib/players.mjs';
import { Rehearsal } from './lib/rehearsal.mjs';

const [binary, directory] = process.argv.slice(2);

await part('a game moves to the hub', async () => {
  theUnitsAreEqual();
  const rehearsal = new Rehearsal(binary, directory);
  await rehearsal.startTheGame();
  const took = {};

  await theHubBeside(rehearsal, took);
  await shadow(rehearsal);
  await checkFinds(rehearsal);
  const duel = await canary(rehearsal, took);
  await theHubFails(rehearsal, duel);
  await move(rehearsal, duel, took);
  await wayBack(rehearsal, took);

  for (const [name, text] of Object.entries(rehearsal.site.logs())) {
    if (name.startsWith('duelhub-')) ok(!text.includes('ticket='), `no ticket is in nginx's ${name}`);
  }
  const { asked, slowestMs, failed } = await rehearsal.prober.stop();
  equal(failed, [], 'the API and the webhook answer all the while');
  ok(asked > 200, 'and were asked', `${asked}`);
  // The hub is killed with one player on it, and the old process and the hub are stopped with two each.
  equal(Duel.reconnects, 5, 'who comes back had lost a process');
  const waits = Duel.waitsMs.sort((one, other) => one - other).map(Math.round);
  console.log(`reloads of nginx (ms): ${Object.entries(took).map(([what, ms]) => `${what} ${ms}`).join(', ')}`);
  console.log(`requests to API and webhook: ${asked} answered, ${failed.length} failed, slowest ${slowestMs} ms`);
  console.log(`changes: ${Duel.changes}, each seen by both; median ${waits[waits.length >> 1]} ms, slowest ${waits.at(-1)} ms`);
  console.log(`reconnects: ${Duel.reconnects}, each of a player whose process had ended`);
});

/** The unit beside the game has the lines of the other one, but for the paths, which all come from its name. */
function theUnitsAreEqual() {
  const [own, shipped] = ['game/duelhub.service', 'quizbot-websocket.service'].map((name) => {
    const text = readFileSync(new URL(`../../deploy/${name}`, import.meta.url), 'utf8');
    return text.split('\n').filter((line) => line && !/^(#|Description=)/.test(line));
  });
  const renamed = own.map((line) => line
    .replace('%E/%N/hub.env', '/var/www/quizbot/bot/config/app.env').replace('%E/%N', '/var/www/quizbot/bot/config')
    .replace('%S/%N', '/var/lib/duelhub').replace('=%N', '=duelhub'));
  equal(renamed, shipped, 'the two units are equal but for their paths');
  ok(own.every((line) => !/\/(etc|var|opt|home|srv)\//.test(line)), 'no path of a game is in the unit beside it');
}

/** A duel that begins before anything is there goes on while hub and include are added. */
async function theHubBeside(rehearsal, took) {
  const duel = await rehearsal.newDuel();
  await duel.enter(['old', 'old']);
  await duel.round();
  await rehearsal.startHub();
  rehearsal.site.add();
  const started = performance.now();
  await rehearsal.site.reload();
  took.include = Math.round(performance.now() - started);
  await duel.round();
  await duel.lost();
  equal(await rehearsal.sideFor(duel), 'old', 'the include alone gives nobody a ticket of the hub');
  await duel.finish();
  equal(await rehearsal.metric('duelhub_duels'), 0, 'and the hub has heard of nothing');
}

/** PHP serves, and the hub receives every push, with nobody connected. */
async function shadow(rehearsal) {
  rehearsal.push();
  const duel = await rehearsal.newDuel();
  await duel.enter(['old', 'old']);
  for (let round = 0; round < 2; round += 1) await duel.round();
  const { duel: held } = await rehearsal.call('GetDuel', { duelId: duel.id });
  equal(held.position.seq, '4', 'shadow: the hub has every change, those that happen inside a GET too');
  equal(await rehearsal.metric('duelhub_connections_opened_total'), 0, 'shadow: and nobody is connected');
  equal(await rehearsal.sideFor(duel, '&ticket_by=duelhub'), 'hub', 'shadow: who asks for it gets a ticket of the hub');
  await duel.lost();
  await duel.finish();
}

/** One player is inside of the share, the other is not: both see every change. Returns the duel that goes on. */
async function canary(rehearsal, took) {
  const running = await rehearsal.newDuel();
  await running.enter(['old', 'old']);
  await running.round();
  took.canary = await rehearsal.share('canary');
  await running.round();
  await running.lost();
  await running.finish();

  const duel = await rehearsal.newDuel();
  await duel.enter(['hub', 'old']);
  await duel.round();
  await duel.lost();
  return duel;
}

/** The hub is killed in the canary: its player gets the game's own ticket, and nothing is missed. */
async function theHubFails(rehearsal, duel) {
  const [ada] = rehearsal.players;
  await rehearsal.stopHub('SIGKILL');
  await duel.roundMeanwhile({ polled: true });
  const seen = await ada.until('is back on the old process', ({ connections }) => connections === 2);
  equal(seen.sides, ['hub', 'old'], 'without the hub PHP issues its own ticket');
  await duel.round();
  await duel.lost({ Ada: 1 });
  await rehearsal.startHub();
  await duel.round();
}

/** The move, in a duel that goes on; then the old process goes, while both are still connected to it. */
async function move(rehearsal, duel, took) {
  took.move = await rehearsal.share('move');
  await duel.round();
  await duel.lost({ Ada: 1 });
  await rehearsal.game.stopOldProcess();
  await duel.roundMeanwhile();
  const seen = await duel.each('is back, on the hub', ({ sides, connections }) => sides.at(-1) === 'hub' && connections >= 2);
  ok(seen.every(({ stopped }) => stopped === null), 'the end of the old process puts nobody off');
  await duel.round();
  await duel.finish();

  const next = await rehearsal.newDuel();
  await next.enter(['hub', 'hub']);
  await next.round();
  await next.lost();
  await next.finish();
}

/** Back, in a duel that goes on; then without hub and include, as it was. */
async function wayBack(rehearsal, took) {
  const duel = await rehearsal.newDuel();
  await duel.enter(['hub', 'hub']);
  await rehearsal.game.startOldProcess();
  took.back = await rehearsal.share('back');
  await duel.round();
  await duel.lost();
  equal(await rehearsal.sideFor(duel), 'old', "the next ticket is the old process's");
  await rehearsal.stopHub('SIGTERM');
  await duel.each('is back on the old process', ({ sides, connections }) => sides.at(-1) === 'old' && connections === 2);
  await duel.round();
  await duel.finish();

  rehearsal.game.configure({ DUELHUB_PUSH: '' });
  rehearsal.site.takeOut();
  await rehearsal.site.reload();
  const last = await rehearsal.newDuel();
  await last.enter(['old', 'old']);
  await last.round();
  await last.finish();
}
