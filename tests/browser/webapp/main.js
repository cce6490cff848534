// Starts the client that the address asks for: /?duel=7[&client=resuming]#tgWebAppData=<initData>. Telegram itself hands
// initData over in the fragment.

import { ResumingWebApp } from './resuming.js';
import { WebApp } from './webapp.js';

const parameters = new URLSearchParams(location.search);
const duelId = Number(parameters.get('duel'));
const initData = new URLSearchParams(location.hash.slice(1)).get('tgWebAppData');
const Client = parameters.get('client') === 'resuming' ? ResumingWebApp : WebApp;

// Without a duel the page is just a place to run scripts in.
if (duelId) {
  window.app = new Client({ duelId, initData });
  window.app.connect();
}
