// initData as Telegram makes it, signed by the library that others check theirs with.

import { sign } from './tools.mjs';

export const BOT_TOKEN = '7000000001:AAF-test-bot-token_0123456789abcdef';

/** initData of a Telegram user, signed `ageSeconds` ago. */
export function initDataOf(telegramId, { ageSeconds = 0, token = BOT_TOKEN, ...fields } = {}) {
  const user = { id: telegramId, first_name: 'Зоя', last_name: "O'Neil & Co", language_code: 'ru', is_premium: true };
  const data = { query_id: `AAH${telegramId}`, user, signature: `sig-${telegramId}_x`, ...fields };
  return sign(data, token, new Date(Date.now() - ageSeconds * 1000));
}
