// The demo page: a backend, two players, and the log of what was pushed and what each of them received.

import * as backend from './backend.js';
import { copied } from './copied.js';
import { Game } from './game.js';
import { Guide } from './guide.js';
import { Ledger } from './ledger.js';
import { Panel } from './panel.js';
import { duration } from './words.js';

const COPIED_FOR_MS = 1500;
const byId = (id) => document.getElementById(id);

let duel = null;
let game = new Game();
let panels = [];
let ledger = null;
let guide = null;
let shown = null; // the call whose lines are shown
let underWay = 0; // calls that are not answered yet
let lastPush = Promise.resolve();

async function openDuel() {
  duel = await backend.openDuel();
  panels.forEach((panel) => panel.close());
  panels = []; // so that the old players do not join the new game
  game = new Game();
  panels = duel.seats.map(seatPanel);
  panels.forEach(({ element }, index) => byId(`seat-${index + 1}`).replaceChildren(element));
  ledger = new Ledger(byId('rows'), panels, { canPush: canPush(), onSelect: showRow });
  showDuel();
  // Before the players connect, so that they start as a latecomer does: with the present state.
  if (canPush()) await nextQuestion();
  panels.forEach((panel) => panel.connect());
}

function seatPanel(seat, index) {
  if (seat.userId !== null) game.join(seat.userId);
  return new Panel({
    number: index + 1,
    seat,
    opponent: duel.seats[1 - index]?.name ?? 'Opponent',
    url: duel.url,
    duelId: duel.id,
    on: {
      mayAnswer: (userId) => canPush() && game.canAnswer(userId),
      answer: (userId, choice) => run(() => answer(userId, choice)),
      event: (event, at) => receive(index, event, at),
      connected: (recovered) => comeBack(index, recovered),
      cut: () => {
        ledger.note(index, 'network cut', 'The connection was closed, and no other one is let through');
        guide?.done('cut');
      },
      change: () => ledger?.refresh(),
    },
  });
}

const canPush = () => duel?.terminal != null;

function showDuel() {
  byId('duel').textContent = `Duel ${duel.id}`;
  for (const id of ['backend', 'docs']) byId(id).hidden = !canPush();
  byId('measured').hidden = !canPush();
  document.body.dataset.canPush = canPush();
  if (canPush()) guide ??= new Guide(byId('guide'));
  refreshButtons();
}

function refreshButtons() {
  byId('next').disabled = byId('finish').disabled = !canPush() || game.finished;
  byId('new-duel').classList.toggle('primary', game.finished);
  byId('next').classList.toggle('primary', !game.finished);
}

// What players receive

function receive(index, event, at) {
  ledger.received(index, event, at);
  if (event.delivery === 'replayed') guide?.done('replay');
  if (event.type === 'duel_closed') {
    // Whoever closed it: a terminal can, too.
    game.finished = true;
    refreshButtons();
  }
  if (underWay === 0) settle();
}

function settle() {
  if (canPush() && ledger.settle()) guide.done('paste');
}

function comeBack(index, recovered) {
  // A first connection is no coming back.
  if (recovered === null) return;
  ledger.cameBack(index);
  if (recovered) ledger.note(index, 'back, complete', 'recovered: true. Everything that was missed is replayed');
  else ledger.note(index, 'back, begun anew', 'recovered: false. Something is gone, so the present state follows');
}

// What the backend pushes

async function answer(userId, choice) {
  if (!game.canAnswer(userId)) return;
  game.answer(userId, choice);
  await pushGame((payload) => ({ method: 'PushEvent', request: { duelId: duel.id, payload, views: game.views() } }));
}

function nextQuestion() {
  game.nextRound();
  return pushGame((payload) => ({ method: 'PushEvent', request: { duelId: duel.id, payload } }));
}

function finish() {
  game.finish();
  // The button pressed cannot be pressed again, and somebody with a keyboard goes on from here.
  if (document.activeElement === byId('finish')) queueMicrotask(() => byId('new-duel').focus());
  const request = (payload) => ({ duelId: duel.id, status: 'DUEL_STATUS_FINISHED', lastEvent: { payload } });
  return pushGame((payload) => ({ method: 'CloseDuel', request: request(payload) }));
}

function pushGame(callWith) {
  const pressedAt = performance.now();
  const call = callWith(game.payload());
  const book = ledger;
  const missed = panels.some(({ isCut }) => isCut);
  const isFirst = panels.every(({ isOnline }) => !isOnline) && !missed;
  refreshButtons();
  panels.forEach((panel) => panel.renderQuiz());
  underWay += 1;
  // One after the other: two requests under way at once might reach the hub in the wrong order.
  lastPush = lastPush.catch(() => {}).then(async () => {
    try {
      const { answer, hubMs } = await backend.call(call);
      const push = { call, pressedAt, answeredAt: performance.now(), hubMs, epoch: answer.position.epoch };
      const seq = Number(answer.position.seq);
      // The last event and the end are one call, and two events.
      if (call.method === 'CloseDuel') book.pushed(seq - 1, { ...push });
      book.pushed(seq, push);
      showPush(seq, push, answer.connections ?? 0);
      if (!isFirst) guide?.done(missed ? 'miss' : 'push');
    } finally {
      underWay -= 1;
      if (underWay === 0) settle();
    }
  });
  return lastPush;
}

function showPush(seq, { call, hubMs }, connections) {
  const handed = `${connections} connection${connections === 1 ? '' : 's'}`;
  byId('pushed').textContent = `Event ${seq} · ${duration(hubMs)} in the hub · ${handed}`;
  ledger.select(null);
  showCall(call, 'Last press');
}

// The call as a line

function showRow({ seq, call }) {
  ledger.select(seq);
  showCall(call, `Event ${seq}`);
}

function showCall(call, title) {
  shown = call;
  byId('call-title').textContent = `${title}: ${call.method}`;
  showLine();
}

function showLine() {
  if (!shown) return;
  const form = document.querySelector('input[name="as"]:checked').value;
  byId('line').textContent = copied(shown, duel.terminal)[form];
  byId('line').scrollTop = 0;
}

async function copyLine() {
  try {
    await navigator.clipboard.writeText(byId('line').textContent);
    byId('copy').textContent = 'Copied';
  } catch {
    // No clipboard without a secure context: select the line, so that one key copies it.
    getSelection().selectAllChildren(byId('line'));
    byId('copy').textContent = 'Selected';
  }
  setTimeout(() => (byId('copy').textContent = 'Copy'), COPIED_FOR_MS);
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

byId('next').addEventListener('click', () => run(nextQuestion));
byId('finish').addEventListener('click', () => run(finish));
byId('new-duel').addEventListener('click', () => run(openDuel));
byId('copy').addEventListener('click', copyLine);
for (const input of document.querySelectorAll('input[name="as"]')) input.addEventListener('change', showLine);
refreshButtons();
run(openDuel);
