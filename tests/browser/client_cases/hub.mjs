// The hub goes away and comes back, or its engine does.

import { copyCertificate } from '../lib/certificate.mjs';
import { equal } from '../lib/check.mjs';
import { startNginx } from '../lib/nginx.mjs';
import { freePorts } from '../lib/ports.mjs';
import { startRedis } from '../lib/redis.mjs';
import { copySite } from '../lib/site.mjs';
import { BACK_WITHIN_MS, Stage } from '../lib/stage.mjs';
import { seconds } from '../lib/user.mjs';

/** By SIGTERM: the hub says when to come back. */
export const restarted = (stage) => restart(stage, 'SIGTERM');

/** By SIGKILL: it says nothing. */
export const killed = (stage) => restart(stage, 'SIGKILL');

async function restart(stage, signal) {
  const { duel, user } = await stage.scene();
  const stoppedAt = Date.now();
  await stage.stopHub(signal);
  const noticed = await user.untilState('waiting', { since: stoppedAt });
  await stage.startHub();
  const startedAt = Date.now();
  await duel.push(2);
  const back = await user.untilState('online', { since: noticed.at, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  equal((await user.seen()).connected.at(-1).recovered, true, `${signal}: nothing is missing`);
  await user.close();
  return `noticed ${seconds(noticed.at - stoppedAt)}, back ${seconds(back.at - stoppedAt)} (hub ready ${seconds(startedAt - stoppedAt)})`;
}

/** The backend wants everybody to connect anew. */
export async function sentAround(stage) {
  const { duel, user } = await stage.scene();
  const startedAt = Date.now();
  await stage.call('Disconnect', { duelId: duel.id, userId: user.id, reconnect: true });
  await duel.push(2);
  const back = await user.untilState('online', { since: startedAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  equal((await user.seen()).connected.at(-1).recovered, true, 'sent around: nothing is missing');
  await user.close();
  return `back ${seconds(back.at - startedAt)}`;
}

/** Redis is killed, and its replica takes over. The hub stays. */
export async function failedOver(stage, { binary, directory }) {
  const redis = await startRedis(`${directory}/redis`);
  const own = new Stage(binary, `${directory}/redis-hub`, { ENGINE: 'redis', REDIS_URL: redis.url, WEBSOCKET_DRAIN_SECONDS: '1' });
  await own.start(() => stage.browser);
  const { duel, user } = await own.scene();
  await redis.caughtUp();
  const failedAt = Date.now();
  await redis.failOver();
  const noticed = await user.untilState('waiting', { since: failedAt, withinMs: 30_000 });
  const back = await user.untilState('online', { since: noticed.at, withinMs: 30_000 });
  await duel.push(2);
  await user.untilSeen(duel.pushed);
  equal((await user.seen()).connected.at(-1).recovered, true, 'failed over: nothing is missing');
  await user.close();
  return `back ${seconds(back.at - failedAt)} after the kill, ${seconds(back.at - noticed.at)} after the hub's word`;
}

/** As it is deployed: TLS, nginx as we ship it, and the hub killed behind it, so that players get its 502 for a while. */
export async function killedBehindNginx(stage, { binary, directory, certificates }) {
  const own = new Stage(binary, `${directory}/nginx`);
  await own.start(() => stage.browser);
  const [http, https] = await freePorts(2);
  const webRoot = `${directory}/nginx/root`;
  copySite(webRoot);
  copyCertificate(certificates, `${directory}/nginx`);
  // The ticket API is the hub's own, so nothing asks the backend.
  await startNginx({ directory: `${directory}/nginx`, domain: 'localhost', http, https, hub: own.edge, backend: own.edge, webRoot });
  const duel = await own.duel();
  const user = await own.open(duel, null, { origin: `https://localhost:${https}`, url: '/ws' });
  await user.untilState('online');
  await duel.push(2);
  await user.untilSeen(duel.pushed);

  const killedAt = Date.now();
  await own.stopHub('SIGKILL');
  await user.until('an attempt gets 502', ({ states }) => isSecondFailure(states, killedAt), BACK_WITHIN_MS);
  await own.startHub();
  const startedAt = Date.now();
  await duel.push(2);
  const back = await user.untilState('online', { since: startedAt, withinMs: BACK_WITHIN_MS });
  await user.untilSeen(duel.pushed);
  equal((await user.seen()).connected.at(-1).recovered, true, 'behind nginx: nothing is missing');
  await user.close();
  return `back ${seconds(back.at - startedAt)} after the hub, which was away ${seconds(startedAt - killedAt)}`;
}

function isSecondFailure(states, since) {
  return states.filter(({ name, at }) => name === 'waiting' && at >= since).length >= 2;
}
