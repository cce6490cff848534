// Chromium, nginx as we ship it, the hub in production, a backend, and the WebApp that exists today.
// Arguments: the hub's binary, an empty directory.

import { fileURLToPath } from 'node:url';

import { part } from './lib/check.mjs';
import { Evidence } from './lib/evidence.mjs';
import { startStack } from './lib/stack.mjs';
import { checkDisconnect } from './steps/disconnect.mjs';
import { checkDuel, checkThoseKeptOut } from './steps/duel.mjs';
import { checkLimits } from './steps/limits.mjs';
import { checkLogs, checkRequestIds, loseTheHub } from './steps/logs.mjs';
import { checkOrigins, checkWaysToOpen } from './steps/origins.mjs';
import { checkResume } from './steps/resume.mjs';
import { checkRouting } from './steps/routing.mjs';
import { checkTicketApi } from './steps/ticket_api.mjs';

const [binary, directory] = process.argv.slice(2);
const webRoot = fileURLToPath(new URL('webapp', import.meta.url));

await part('the whole deployment in a browser', async () => {
  const stack = await startStack({ binary, directory, webRoot });
  stack.evidence = new Evidence();
  await checkRouting(stack);
  await checkTicketApi(stack);
  await checkDuel(stack);
  await checkThoseKeptOut(stack);
  await checkResume(stack);
  await checkDisconnect(stack);
  await checkOrigins(stack);
  await checkWaysToOpen(stack);
  await checkRequestIds(stack);
  await checkLimits({ ...stack, accessLog: 'quizbot-access.log' });
  await loseTheHub(stack);
  await stack.browser.close();
  await checkLogs(stack);
});
