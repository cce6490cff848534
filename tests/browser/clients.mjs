// The client package in Chromium, Firefox and WebKit, over bad networks, against a hub that is restarted: what the user sees, and after
// how long. Arguments: the hub's binary, an empty directory. BROWSERS=firefox,webkit and CASES=cut,reload leave others out.

import * as ends from './client_cases/ends.mjs';
import * as hub from './client_cases/hub.mjs';
import * as network from './client_cases/network.mjs';
import * as page from './client_cases/page.mjs';
import * as ticket from './client_cases/ticket.mjs';
import { BROWSERS } from './lib/browsers.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { ok, part } from './lib/check.mjs';
import { Stage } from './lib/stage.mjs';

const [binary, directory] = process.argv.slice(2);

// Each case has a duel and a network of its own, so some go on at a time. Those that stop the hub or the whole browser, or have to tell
// whose a new window is, come after them, one by one.
const { asleep, duplicatedTab, ...pageCases } = page;
const { initDataExpired, ...ticketCases } = ticket;
const TOGETHER = { ...network, ...pageCases, ...ticketCases, ...ends };
const ALONE = { duplicatedTab, asleep, initDataExpired, ...hub };
const AT_A_TIME = 3;

const chosen = (variable, all) => process.env[variable]?.split(',') ?? Object.keys(all);

await part('the client package in three browsers', async () => {
  const names = chosen('BROWSERS', BROWSERS);
  const { spki } = makeCertificate(directory, ['localhost']);
  const results = new Map(); // case → { browser: figure }
  const versions = await Promise.all(names.map((name) => inBrowser(name, results, spki)));
  print(versions, results);
});

async function inBrowser(name, results, spki) {
  const place = { binary, directory: `${directory}/${name}`, certificates: directory };
  const stage = new Stage(place.binary, place.directory);
  try {
    await stage.start((profile) => BROWSERS[name](profile, spki));
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
  };
  const cases = chosen('CASES', { ...TOGETHER, ...ALONE });
  const waiting = Object.entries(TOGETHER).filter(([label]) => cases.includes(label));
  const playNext = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await play(...next);
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, playNext));
  for (const [label, run] of Object.entries(ALONE)) if (cases.includes(label)) await play(label, run);
  return title;
}

function print(titles, results) {
  for (const [label, figures] of results) {
    console.log(label);
    for (const title of titles) console.log(`    ${title.padEnd(26)} ${figures[title] ?? ''}`);
  }
}
