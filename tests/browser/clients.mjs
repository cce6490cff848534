// The client package in Chromium, Firefox and WebKit, over bad networks, against a hub that is restarted: what the user sees, and after
// how long. Arguments: the hub's binary, an empty directory. BROWSERS=firefox,webkit and CASES=cut,reload leave others out.

import * as ends from './client_cases/ends.mjs';
import * as hub from './client_cases/hub.mjs';
import * as network from './client_cases/network.mjs';
import * as page from './client_cases/page.mjs';
import * as ticket from './client_cases/ticket.mjs';
import { BROWSERS } from './lib/browsers.mjs';
import { ok, part } from './lib/check.mjs';
import { Stage } from './lib/stage.mjs';

const [binary, directory] = process.argv.slice(2);

// One after the other, because the ticket API and the hub are for all of a browser's pages. It takes 25 s and has a network of its own, so
// the others go on meanwhile, but for those that stop the hub or the browser.
const { blackHoleByDefault, ...networkCases } = network;
const { asleep, ...pageCases } = page;
const { initDataExpired, ...ticketCases } = ticket;
const CASES = { ...networkCases, ...pageCases, ...ticketCases, ...ends, asleep, initDataExpired, ...hub };

const chosen = (variable, all) => process.env[variable]?.split(',') ?? Object.keys(all);

await part('the client package in three browsers', async () => {
  const names = chosen('BROWSERS', BROWSERS);
  const results = new Map(); // case → { browser: figure }
  const versions = await Promise.all(names.map((name) => inBrowser(name, results)));
  print(versions, results);
});

async function inBrowser(name, results) {
  const place = { binary, directory: `${directory}/${name}` };
  const stage = new Stage(place.binary, place.directory);
  try {
    await stage.start(BROWSERS[name]);
  } catch (error) {
    ok(false, `${name} starts`, error.stack);
    return name;
  }
  const title = `${stage.browser.name} ${stage.browser.version}`;
  const play = async (label, run) => {
    let figure = 'FAILED';
    try {
      figure = await run(stage, place);
    } catch (error) {
      ok(false, `${title}: ${label}`, error.stack);
    }
    results.set(label, { ...results.get(label), [title]: figure });
    stage.site.api = 'up';
  };
  const cases = chosen('CASES', { ...CASES, blackHoleByDefault });
  const slow = cases.includes('blackHoleByDefault') && play('blackHoleByDefault', blackHoleByDefault);
  for (const [label, run] of Object.entries(CASES)) {
    if (!cases.includes(label)) continue;
    if (run === asleep) await slow;
    await play(label, run);
  }
  await slow;
  return title;
}

function print(titles, results) {
  for (const [label, figures] of results) {
    console.log(label);
    for (const title of titles) console.log(`    ${title.padEnd(26)} ${figures[title] ?? ''}`);
  }
}
