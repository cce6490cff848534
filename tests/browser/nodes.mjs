// nginx as we ship it for several nodes, of which one is away: who a client is taken for, how much a backend may send, what one
// address may take, and what the logs say when the last node goes. No browser in it.
// Arguments: the hub's binary, an empty directory.

import { randomBytes } from 'node:crypto';

import { equal, ok, part, until } from './lib/check.mjs';
import { Evidence } from './lib/evidence.mjs';
import { controlAt } from './lib/grpcurl.mjs';
import { HANDSHAKE, request } from './lib/https.mjs';
import { startHub } from './lib/hub.mjs';
import { startNetwork } from './lib/network.mjs';
import { startNodesNginx } from './lib/nginx.mjs';
import { freePorts } from './lib/ports.mjs';
import { BOT_TOKEN, initDataOf } from './lib/telegram.mjs';
import { checkLimits, flood } from './steps/limits.mjs';

const [binary, directory] = process.argv.slice(2);
/** Where the TLS proxy in front of nginx connects from. */
const GATEWAY = '127.0.0.9';
const TICKET = '/api/duel/ws-ticket?duel_id=7';

await part('nginx for several nodes', async () => {
  const [edge, control, nobody] = await freePorts(3);
  const token = randomBytes(16).toString('hex');
  const hub = await startHub(binary, directory, {
    APP_ENV: 'production', CONTROL_TOKEN: token, TELEGRAM_BOT_TOKEN: BOT_TOKEN, WEBAPP_URL: 'https://quiz.test',
    WEBSOCKET_TICKET_SECRET: randomBytes(32).toString('hex'),
  });
  const network = await startNetwork(hub.edge);
  const node = { edge: network.address, control: hub.control };
  const nodes = [node, node, { edge: `127.0.0.1:${nobody}`, control: `127.0.0.1:${nobody}` }];
  const nginx = await startNodesNginx({ directory, edge, control, nodes, gateway: GATEWAY });
  const get = (path, options) => request(`http://quiz.test:${edge}${path}`, options);
  const call = controlAt(`127.0.0.1:${control}`, token);
  const evidence = new Evidence();

  await aBackendMaySendMuch(call);
  await whoAsks(get, hub);
  await otherPaths(get);
  await checkLimits({ get, call, nginx, accessLog: 'access.log', evidence });
  await behindTheGateway(get);
  await theLastNodeGoes({ get, call, network, nginx, evidence });
});

/** More in one stream than nginx takes in one request of its own accord. */
async function aBackendMaySendMuch(call) {
  const payload_json = JSON.stringify({ text: 'x'.repeat(50_000) });
  const pushes = Array.from({ length: 60 }, (_, nth) => ({ tag: nth + 1, push: { duel_id: 5, payload_json } }));
  const answers = await call('PushEvents', pushes);
  equal(answers.map(({ pushed }) => pushed?.position.seq), pushes.map(({ tag }) => `${tag}`), 'a stream of 3 MB is pushed');
}

async function whoAsks(get, hub) {
  const madeUp = '0123456789abcdef';
  const asked = async (what, client, options) => {
    const { status, headers } = await get(TICKET, options);
    equal(status, 401, `${what}: answered`);
    const id = headers['x-request-id'];
    ok(/^[0-9a-f]{16}$/.test(id) && id !== madeUp, `${what}: the request id is nginx's`, id);
    const lines = () => hub.log().split('\n').slice(0, -1).filter((line) => line.includes(id)).map((line) => JSON.parse(line));
    const { client: seen } = await until(`${what}: is logged`, () => lines().find((line) => line.client));
    equal(seen, client, `${what}: the hub takes them for`);
  };
  const forwarded = (list) => ({ 'X-Forwarded-For': list, 'X-Request-Id': madeUp });
  await asked('a player', '127.0.0.2', { from: '127.0.0.2' });
  await asked('a player who makes things up', '127.0.0.2', { from: '127.0.0.2', headers: forwarded('203.0.113.9') });
  await asked('behind the TLS proxy', '203.0.113.9', { from: GATEWAY, headers: forwarded('203.0.113.9') });
  await asked('behind it, making things up', '203.0.113.9', { from: GATEWAY, headers: forwarded('198.51.100.1, 203.0.113.9') });
}

async function otherPaths(get) {
  for (const path of ['/', '/?ticket=x', '/ws/other', '/metrics']) {
    equal((await get(path)).status, 404, `GET ${path}: nothing is there`);
  }
  for (const path of ['/ws', '/ws/']) equal((await get(path, { headers: HANDSHAKE })).status, 101, `${path} opens`);
}

/** Whose addresses are one. */
async function behindTheGateway(get) {
  const as = (address) => ({ from: GATEWAY, headers: { 'X-Forwarded-For': address } });
  // A hundred at once: what is refused has room for another request every 20 ms.
  const statuses = async (address) => {
    const answers = await Promise.all(Array.from({ length: 100 }, () => get('/ws', { method: 'POST', ...as(address) })));
    return new Set(answers.map(({ status }) => status));
  };
  for (const [what, one, same, other] of [
    ['a /64 of IPv6', '2001:db8:1:2::1', '2001:db8:1:2:ffff:1:0:2', '2001:db8:1:3::1'],
    ['an IPv4 address', '203.0.113.1', '::ffff:203.0.113.1', '203.0.113.2'],
    ['an IPv4 address in the form of IPv6', '::ffff:203.0.113.3', '203.0.113.3', '::ffff:203.0.113.4'],
  ]) {
    ok(await flood(get, '/ws', as(one)), `${what}: who floods is refused`);
    ok((await statuses(same)).has(429), `${what}: and whoever counts as the same`);
    equal([...(await statuses(other))], [405], `${what}: and nobody else`);
  }
}

async function theLastNodeGoes({ get, call, network, nginx, evidence }) {
  const { ticket } = await call('IssueTicket', { duel_id: 80, user_id: 1 });
  evidence.ticket(ticket);
  const initData = initDataOf(980001);
  evidence.initData(initData);
  await network.refuse();
  for (const path of ['/ws', '/ws/', '/']) {
    const { status } = await get(`${path}?ticket=${ticket}`, { headers: HANDSHAKE });
    equal(status, path === '/' ? 404 : 502, `${path} without a node`);
  }
  equal((await get(TICKET, { headers: { 'X-Telegram-Init-Data': initData } })).status, 502, 'the ticket API without a node');
  const large = await get(`/ws?ticket=${ticket}`, { method: 'POST', headers: { 'Content-Length': '2000000' } });
  equal(large.status, 413, 'a large request');

  const logs = nginx.logs();
  for (const [name, text] of Object.entries(logs)) equal(evidence.leaksIn(text), [], `no secret in nginx's ${name}`);
  const lines = logs['access.log'].trim().split('\n').map((line) => JSON.parse(line));
  const failed = lines.filter(({ status }) => status === 502);
  equal(failed.length, 3, 'the access log has each request that no node took');
  ok(failed.every(({ upstream_status }) => upstream_status.includes('502')), 'and what came of the nodes');
}
