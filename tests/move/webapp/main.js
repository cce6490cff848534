// The page of a player of the game that moves: one duel after the other, with the initData that it was opened with. Where its API
// and its WebSocket are stands in the address, as a build has it: /?site=localhost:443#tgWebAppData=<initData>.

import { WebApp } from './webapp.js';

const site = new URLSearchParams(location.search).get('site') ?? location.host;
const initData = new URLSearchParams(location.hash.slice(1)).get('tgWebAppData');
// On its own site the page names no host, as a build for it does not.
const apiUrl = site === location.host ? '/api' : `https://${site}/api`;
const POLL_EVERY_MS = 2_500;

/** How far a duel is, as a number that grows with each change: what a frame says, and what the API says. */
function progressOf({ status, last_round_number: round, last_round_closed_at: closed }) {
  if (status === 'finished') return Infinity;
  return 2 * (round ?? 0) + (closed ? 1 : 0);
}

class Duel extends WebApp {
  /** The furthest that a frame told of, and that was rendered; Infinity is not JSON, so both are texts to the test. */
  told = 0;
  rendered = 0;
  connections = 0;

  #id;

  constructor(duelId) {
    super({ duelId, initData, apiUrl, wsUrl: `wss://${site}/ws` });
    this.#id = duelId;
  }

  read(message) {
    super.read(message);
    if (message.type === 'connected') this.connections += 1;
    if (message.type !== 'duel_update' || !message.payload.duel_id) return;
    this.told = Math.max(this.told, progressOf(message.payload));
    this.render();
  }

  /** The existing WebApp asks the API, whatever the frame says. */
  async render() {
    const { data } = await this.ask('GET', '');
    this.rendered = Math.max(this.rendered, progressOf(data));
  }

  async ask(method, action) {
    const answer = await fetch(`${apiUrl}/duel/${this.#id}${action}`, { method, headers: { 'X-Telegram-Init-Data': initData } });
    return answer.json();
  }
}

let polling;
window.play = (duelId) => {
  clearInterval(polling);
  window.duel = new Duel(duelId);
  window.duel.connect();
  polling = setInterval(() => window.duel.render(), POLL_EVERY_MS);
};
window.act = (action) => window.duel.ask('POST', `/${action}`);
