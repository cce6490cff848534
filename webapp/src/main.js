// The demo page: two phones, and between them the backend that pushes to both.

import * as backend from './backend.js';
import { Game } from './game.js';
import { Phone } from './phone.js';

const SEATS = [0, 1];
const byId = (id) => document.getElementById(id);

let duel = null;
let game = new Game();
let phones = [];
let lastPush = Promise.resolve();

async function openDuel() {
  duel = await backend.openDuel();
  phones.forEach(({ player }) => player.drop());
  phones = []; // so that the old players do not join the new game
  game = new Game();
  phones = duel.seats.map(seatPhone);
  phones.forEach((phone, index) => byId(`seat-${index + 1}`).replaceChildren(phone.element));
  showDuel();
  // Before the phones connect, so that they start as a latecomer does: with the present state.
  if (duel.created) await nextRound();
  phones.forEach(({ player }) => player.connect());
}

function seatPhone(seat, index) {
  if (seat.userId !== null) game.join(seat.userId);
  return new Phone({
    number: index + 1,
    seat,
    opponent: duel.seats[1 - index]?.name ?? 'Opponent',
    socketUrl: backend.socketUrl,
    mayAnswer: (userId) => duel.canPush && game.canAnswer(userId),
    onAnswer: (userId, choice) => run(() => answer(userId, choice)),
    onChange: refreshButtons,
  });
}

function showDuel() {
  byId('duel').textContent = ` · duel ${duel.id}`;
  for (const index of SEATS) {
    const button = byId(`push-answer-${index + 1}`);
    button.textContent = `${duel.seats[index]?.name} answers`;
    button.hidden = index >= duel.seats.length;
  }
  byId('backend').hidden = !duel.canPush;
  byId('new-duel').hidden = !duel.created;
  byId('terminal').hidden = !duel.grpcurl;
  byId('grpcurl').textContent = duel.grpcurl ?? '';
  refreshButtons();
}

function refreshButtons() {
  // In a real duel the user ids become known only as the phones connect.
  phones.forEach(({ player }) => player.userId !== null && game.join(player.userId));
  for (const index of SEATS) {
    byId(`push-answer-${index + 1}`).disabled = !game.canAnswer(phones[index]?.player.userId);
  }
  byId('push-next').disabled = byId('push-finish').disabled = !duel || game.finished;
}

async function answer(userId, choice) {
  if (!game.canAnswer(userId)) return;
  game.answer(userId, choice);
  await pushGame(backend.push, { type: 'duel_update', views: game.views() });
}

function nextRound() {
  game.nextRound();
  return pushGame(backend.push, { type: 'duel_update' });
}

function finish() {
  game.finish();
  return pushGame(backend.close, { status: 'finished' });
}

function pushGame(send, fields) {
  const pressed = performance.now();
  const body = { duel_id: duel.id, ...fields, payload: game.payload() };
  const recipients = phones;
  refreshButtons();
  // One after the other: two requests under way at once might reach the hub in the wrong order.
  lastPush = lastPush.catch(() => {}).then(async () => {
    const answer = await send(body);
    recipients.forEach((phone) => phone.pushed(answer.position.seq, pressed));
    showPush(body, answer);
  });
  return lastPush;
}

function showPush(body, { position, connections, duration_us }) {
  byId('result-position').textContent = `${position.epoch}:${position.seq}`;
  byId('result-connections').textContent = `${connections} connection${connections === 1 ? '' : 's'}`;
  byId('result-duration').textContent = `${duration_us} µs`;
  byId('request').textContent = JSON.stringify(body, null, 2);
}

async function copyGrpcurl() {
  try {
    await navigator.clipboard.writeText(byId('grpcurl').textContent);
    byId('copy').textContent = 'Copied';
  } catch {
    // No clipboard without a secure context: select the line, so that one key copies it.
    getSelection().selectAllChildren(byId('grpcurl'));
    byId('copy').textContent = 'Selected';
  }
  setTimeout(() => (byId('copy').textContent = 'Copy'), 1_500);
}

async function run(action) {
  byId('notice').hidden = true;
  try {
    await action();
  } catch (error) {
    byId('notice').textContent = error.message;
    byId('notice').hidden = false;
  }
}

const onClick = (id, action) => byId(id).addEventListener('click', () => run(action));

for (const index of SEATS) {
  onClick(`push-answer-${index + 1}`, () => answer(phones[index].player.userId, game.randomChoice()));
}
onClick('push-next', nextRound);
onClick('push-finish', finish);
onClick('new-duel', openDuel);
onClick('copy', copyGrpcurl);
refreshButtons();
run(openDuel);
