// Payloads whose words must never be met in a log.

let count = 0;

/** A payload with a word of its own that is secret. */
export function secretPayload(evidence, fields = {}) {
  count += 1;
  const question = `question-${count}-Кто-здесь-${Math.random().toString(36).slice(2)}`;
  evidence.secret(question, 'a payload');
  return { question, ...fields };
}
