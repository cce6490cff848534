// Many users' initData, signed by the library that others check theirs with, against the ticket API of one hub: what is
// signed is believed, whatever is in it and in whatever order; what was touched is not.
// Arguments: the hub's binary, an empty directory.

import { equal, ok, part } from './lib/check.mjs';
import { controlAt } from './lib/grpcurl.mjs';
import { request } from './lib/https.mjs';
import { startHub } from './lib/hub.mjs';
import { BOT_TOKEN } from './lib/telegram.mjs';
import { claimsOf } from './lib/ticket.mjs';
import { isValid, sign } from './lib/tools.mjs';

const DUEL = 9_007_199_254_740_991;
const FIRST_USER = 5_000;
// Telegram's ids have long outgrown 32 bits.
const FIRST_TELEGRAM_ID = 7_000_000_000;
const NAMES = [
  'Ada', 'Зоя', 'Ёжик в тумане', '李小龍', 'さくら', 'محمد', 'עדי', '🦔', '👩🏽‍💻', '\u00e9', 'e\u0301', 'a&b=c', '100%', '%41', 'a+b', 'a b',
  '"quoted"', "O'Neil", 'back\\slash', 'new\nline', 'tab\there', '<b>', '#?;/', 'hash=0', '&hash=0', ' ', '\u0000', '\u2028',
  'x'.repeat(64),
];

const [binary, directory] = process.argv.slice(2);

await part('initData', async () => {
  const hub = await startHub(binary, directory, {
    APP_ENV: 'production',
    WEBAPP_URL: 'https://quiz.test',
    TELEGRAM_BOT_TOKEN: BOT_TOKEN,
    WEBSOCKET_TICKET_SECRET: 'a secret of thirty-two bytes or more',
  });
  const users = NAMES.map((name, index) => ({
    name,
    userId: FIRST_USER + index,
    telegramId: FIRST_TELEGRAM_ID + index,
  }));
  const participants = users.map(({ userId, telegramId }) => ({ user_id: userId, telegram_id: telegramId }));
  await controlAt(hub.control)('OpenDuel', { duel_id: DUEL, participants });
  const ask = asker(hub.edge);
  for (const user of users) await everyForm(ask, user);
  await times(ask, users[0]);
  for (const user of users.slice(0, 8)) await touched(ask, user);
  await everyCharacter(ask, users[1]);
});

/** Returns (initData) => the user of the ticket, or the answer's code. */
function asker(edge) {
  return async (initData) => {
    const url = `http://${edge}/api/duel/ws-ticket?duel_id=${DUEL}`;
    const { status, json } = await request(url, { headers: { 'X-Telegram-Init-Data': initData } });
    if (json?.success) return Number(claimsOf(json.data.ticket).sub);
    return json?.code ?? status;
  };
}

function signed({ name, telegramId }, { fields = {}, ageSeconds = 0, token = BOT_TOKEN } = {}) {
  const user = {
    id: telegramId, first_name: name, last_name: name, username: 'player_1', language_code: 'ru', is_premium: true,
    allows_write_to_pm: true, photo_url: 'https://t.me/i/userpic/320/a_b-c.svg',
  };
  return sign({ user, ...fields }, token, new Date(Date.now() - ageSeconds * 1000));
}

async function everyForm(ask, user) {
  const plain = signed(user);
  const full = signed(user, {
    fields: {
      query_id: 'AAHdF6IQAAAAAN0XohDhrOrc', chat_instance: '-3788475317572404878', chat_type: 'sender',
      start_param: `duel_7-${user.name}`, can_send_after: 10, signature: 'q4V-hx_signature-of-a-third-party',
      chat: { id: -100123, type: 'supergroup', title: user.name }, receiver: { id: 1, first_name: user.name },
    },
  });
  const forms = {
    plain,
    full,
    'with spaces as %20': full.replaceAll('+', '%20'),
    'with the hash first': hashAt(full, 0),
    'with the hash in the middle': hashAt(full, 4),
    'in reverse order': full.split('&').reverse().join('&'),
    'with the hash in capitals': full.replace(/(?<=hash=)[0-9a-f]+/, (hex) => hex.toUpperCase()),
  };
  for (const [form, initData] of Object.entries(forms)) {
    equal(await ask(initData), user.userId, `${JSON.stringify(user.name)}, ${form}: believed`);
  }
}

function hashAt(initData, position) {
  const fields = initData.split('&').filter((field) => !field.startsWith('hash='));
  fields.splice(position, 0, `hash=${new URLSearchParams(initData).get('hash')}`);
  return fields.join('&');
}

async function times(ask, user) {
  const at = (ageSeconds) => ask(signed(user, { ageSeconds }));
  equal(await at(86_300), user.userId, 'a day old, almost: believed');
  equal(await at(-20), user.userId, 'half a minute ahead, almost: believed');
  for (const ageSeconds of [86_410, 2 * 86_400, 20 * 365 * 86_400, -45, -86_400]) {
    equal(await at(ageSeconds), 'unauthorized', `${ageSeconds} s old: refused`);
  }
}

async function touched(ask, user) {
  const good = signed(user, { fields: { query_id: 'AAH', start_param: 'duel_7', signature: 'sig-1_x' } });
  const fields = good.split('&');
  const without = (name) => fields.filter((field) => !field.startsWith(`${name}=`)).join('&');
  const hash = new URLSearchParams(good).get('hash');
  const table = {
    'another id': good.replace(`${user.telegramId}`, `${user.telegramId + 1}`),
    "another bot's": signed(user, { token: `${BOT_TOKEN}x` }),
    'a field more': `${good}&extra=1`,
    'an empty field more': `${good}&extra`,
    'no hash': without('hash'),
    'an empty hash': `${without('hash')}&hash=`,
    'a short hash': good.slice(0, -1),
    'a long hash': `${good}0`,
    'the hash of nothing': good.replace(hash, '0'.repeat(64)),
    'no signature': without('signature'),
    'no user': without('user'),
    'no auth_date': without('auth_date'),
    'two values swapped': good.replace('query_id=AAH', 'query_id=duel_7').replace('start_param=duel_7', 'start_param=AAH'),
    'two fields in one': good.replace('&start_param=', '%0Astart_param='),
  };
  for (const [what, initData] of Object.entries(table)) {
    equal(await ask(initData), 'unauthorized', `${user.name}, ${what}: refused`);
    ok(!isValid(initData, BOT_TOKEN), `${user.name}, ${what}: the library refuses it too`);
  }
  // Two readers could see two values, so the hub refuses what some libraries take.
  for (const name of ['user', 'hash', 'auth_date', 'query_id']) {
    const twice = `${good}&${fields.find((field) => field.startsWith(`${name}=`))}`;
    equal(await ask(twice), 'unauthorized', `${user.name}, ${name} twice: refused`);
  }
}

/** Not one character of what was signed may be another. */
async function everyCharacter(ask, user) {
  const good = signed(user, { fields: { query_id: 'AAH', signature: 'sig-1_x' } });
  const believed = [];
  for (let at = 0; at < good.length; at += 1) {
    const other = good[at] === '1' ? '2' : '1';
    const changed = good.slice(0, at) + other + good.slice(at + 1);
    if ((await ask(changed)) !== 'unauthorized') believed.push(changed);
  }
  equal(believed, [], `none of ${good.length} initData with one character changed is believed`);
  equal(await ask(good), user.userId, 'the unchanged one still is');
}
