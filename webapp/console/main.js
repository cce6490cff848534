// The operators' console: which view is shown, whether the hub answers, and the token if it wants one.

import { Duel } from './duel.js';
import { Duels } from './duels.js';
import { setText, span, timeOfDay } from './format.js';
import { History } from './history.js';
import { Poller, token } from './hub.js';
import { Overview } from './overview.js';

const byId = (id) => document.getElementById(id);
const history = new History();
const views = { overview: new Overview(byId('overview')), duels: new Duels(byId('duels')), duel: new Duel(byId('duel')) };
const linkState = byId('link-state');
const alert = byId('alert');

let shown = null;
let link = { kind: 'connecting' };
/** The hub's clock less this browser's. */
let clockAhead = 0;

const poller = new Poller({
  onSample(node) {
    clockAhead = node.at_ms - Date.now();
    history.add(node);
    draw();
  },
  onState(state) {
    const before = link.kind;
    link = state;
    tellLink();
    if (state.kind !== 'live') draw();
    if (state.kind === 'locked') lock(state.rejected);
    else if (state.kind === 'live' && before !== 'live') unlock(before === 'locked');
  },
});

function draw() {
  if (shown === 'overview') views.overview.draw(history, Date.now() + clockAhead, link.kind === 'live');
  else if (shown === 'duels') views.duels.draw(history);
}

/** What the top of the page says of the connection to the hub. */
function tellLink() {
  const { kind } = link;
  linkState.dataset.state = kind;
  document.body.dataset.link = kind;
  const forLong = link.since ? ` for ${span(Date.now() - link.since)}` : '';
  setText(linkState, { connecting: 'Connecting', live: 'Live', lost: `No answer${forLong}`, locked: 'Locked', refused: 'Refused' }[kind]);
  const text = {
    lost: () => (link.since === null ? 'The hub does not answer.'
      : `The hub has not answered since ${timeOfDay(link.since)}. What is shown is from then.`),
    refused: () => `The hub refuses this page: ${link.text}.`,
  }[kind]?.();
  alert.hidden = !text;
  if (text) setText(alert, text);
}

function route() {
  const [view, id] = location.hash.slice(1).split('/');
  const next = view === 'duel' && id ? 'duel' : view === 'duels' ? 'duels' : 'overview';
  views.duels.hide();
  views.duel.hide();
  shown = next;
  for (const name of Object.keys(views)) byId(name).hidden = name !== shown || link.kind === 'locked';
  for (const anchor of document.querySelectorAll('nav a')) {
    const current = anchor.dataset.view === (shown === 'duel' ? 'duels' : shown);
    if (current) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
  }
  document.title = `${{ overview: 'Overview', duels: 'Duels', duel: `Duel ${id}` }[shown]} – duelhub console`;
  if (link.kind === 'locked') return;
  if (shown === 'duels') views.duels.show();
  if (shown === 'duel') views.duel.show(id);
  draw();
}

function lock(rejected) {
  byId('locked').hidden = false;
  byId('forget').hidden = true;
  route();
  setText(byId('token-error'), rejected ? 'The hub does not accept this token.' : '');
  byId('token').focus();
}

function unlock(wasLocked) {
  byId('locked').hidden = true;
  byId('forget').hidden = token.get() === null;
  if (wasLocked) route();
}

byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  token.set(byId('token').value.trim());
  byId('token').value = '';
  poller.start();
});
byId('forget').addEventListener('click', () => {
  token.forget();
  location.reload();
});
addEventListener('hashchange', () => {
  route();
  byId('content').focus({ preventScroll: true });
  scrollTo(0, 0);
});
// Seconds pass also when nothing is answered: the charts move on, and show that there is nothing.
setInterval(() => {
  if (link.kind !== 'lost' || document.hidden) return;
  tellLink();
  draw();
}, 1000);

route();
poller.start();
