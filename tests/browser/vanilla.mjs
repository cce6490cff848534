// The example of a page without a build step, as its README says, with a hub that was started without any configuration.
// Arguments: the hub's binary, an empty directory.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { complaintsOf, startBrowser } from './lib/browser.mjs';
import { equal, ok, part, until } from './lib/check.mjs';
import { startHub } from './lib/hub.mjs';
import { accepts } from './lib/nginx.mjs';
import { freePorts } from './lib/ports.mjs';
import { start } from './lib/processes.mjs';
import { paste } from './lib/shell.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/vanilla', import.meta.url));
const [binary, directory] = process.argv.slice(2);

await part('a page without a build step', async () => {
  const hub = await startHub(binary, directory);
  const [port] = await freePorts(1);
  start('python3', ['-m', 'http.server', `${port}`, '--bind', '127.0.0.1', '--directory', EXAMPLE], { log: join(directory, 'http.log'), env: process.env });
  await until('the files are served', () => accepts(port));

  // The README's own lines, on the ports that this hub has.
  const [open, push] = [...readFileSync(join(EXAMPLE, 'README.md'), 'utf8').matchAll(/```sh\n(.*?)```/gs)].map(([, lines]) =>
    lines.replace(/^python3 .*\n/, '').replaceAll('127.0.0.1:50051', hub.control));
  const shown = open.replace(/^echo "(.*)"$/m, 'echo "\\"$1\\""').replace('127.0.0.1:8000/', `127.0.0.1:${port}/?hub=${hub.edge}`);
  const browser = await startBrowser();
  const page = await browser.newPage();
  const complaints = complaintsOf(page);
  await page.goto(await paste(shown));
  const says = (text) => page.locator('#events li').filter({ hasText: text }).first().waitFor();
  await page.locator('#state').filter({ hasText: 'online' }).waitFor();
  await paste(push);
  await says('1, live: {"duel_id":78,"question":"Hello from the terminal"}');

  await page.reload();
  await page.locator('#state').filter({ hasText: 'online' }).waitFor();
  await paste(push);
  await says('2, live:');
  equal(await page.locator('#events li').count(), 1, 'a reload goes on where it was');
  equal(complaints, [], 'the page has nothing to complain about');
  ok(readFileSync(join(EXAMPLE, 'index.html'), 'utf8').match(/<script type="module">(.*?)<\/script>/s)[1].trim().split('\n').length < 20, 'it is short');
});
