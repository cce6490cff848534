// A document of the repository, as the hub that serves this page was built from: its guide, and what else is linked from the demo.

import { elementsOf } from './markdown.js';

const ROOT = '/demo/docs/';
const main = document.getElementById('text');
const path = location.pathname.slice(ROOT.length);
/** What there is, besides what links of documents name. */
const links = [...document.querySelectorAll('nav a')];
const known = links.map((link) => new URL(link.href).pathname);

/** Documents that the hub does not have are named, and are no link. */
function hrefOf(address) {
  const url = new URL(address, location.href);
  const isElsewhere = url.origin !== location.origin;
  return isElsewhere || known.includes(url.pathname) ? url.href : null;
}

function show(text) {
  if (path.endsWith('.md')) {
    main.replaceChildren(...elementsOf(text, hrefOf));
  } else {
    const heading = document.createElement('h1');
    heading.textContent = path;
    const source = document.createElement('pre');
    source.className = 'source';
    source.textContent = text;
    main.replaceChildren(heading, source);
  }
  document.title = `${main.querySelector('h1')?.textContent ?? path} · duelhub`;
}

for (const link of links) if (new URL(link.href).pathname === location.pathname) link.setAttribute('aria-current', 'page');
const response = await fetch(location.pathname, { headers: { Accept: 'text/plain' } });
show(await response.text());
// The text has come after the page, so the browser has not found the heading yet.
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
