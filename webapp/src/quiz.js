// The duel as a player sees it, made from the latest duel_update.

/** The elements for `payload`; anything the demo's own game did not make is shown as JSON. */
export function quizContent(payload, { userId, opponent, mayAnswer, onAnswer }) {
  if (!payload) return [text('p', 'Waiting for the first question …', 'wait')];
  if (payload.finished) return result(payload, userId);
  if (!Array.isArray(payload.options)) {
    return [text('p', 'Update', 'round'), text('pre', JSON.stringify(payload, null, 2), 'code')];
  }
  return question(payload, { userId, opponent, mayAnswer, onAnswer });
}

function question(payload, { userId, opponent, mayAnswer, onAnswer }) {
  const options = document.createElement('div');
  options.className = 'options';
  options.append(...payload.options.map((label, index) => option(label, index, payload.you, mayAnswer, onAnswer)));
  return [
    heading(payload, userId),
    text('p', payload.question, 'question'),
    options,
    text('p', verdict(payload, { userId, opponent, mayAnswer }), 'verdict'),
  ];
}

function option(label, index, you, mayAnswer, onAnswer) {
  const button = text('button', label, 'option');
  button.type = 'button';
  button.disabled = !mayAnswer;
  if (you && index === you.correct) button.dataset.mark = 'right';
  else if (you && index === you.choice) button.dataset.mark = 'wrong';
  button.addEventListener('click', () => onAnswer(index));
  return button;
}

function verdict({ you, answered }, { userId, opponent, mayAnswer }) {
  const own = you && (you.choice === you.correct ? 'Right!' : 'Not this time.');
  const other = answered?.some((id) => id !== userId) && `${opponent} has answered.`;
  const invitation = mayAnswer && 'Tap an answer.';
  return [own, other, invitation].filter(Boolean).join(' ') || 'Nobody has answered yet.';
}

function result(payload, userId) {
  const { own, other } = points(payload.scores, userId);
  const words = own > other ? 'You won' : own < other ? 'You lost' : 'A draw';
  return [text('p', 'Finished', 'round'), text('p', words, 'outcome'), text('p', `${own} : ${other}`, 'final')];
}

function heading({ round, scores }, userId) {
  const { own, other } = points(scores, userId);
  const line = text('p', `Round ${round}`, 'round');
  line.append(text('span', `${own} : ${other}`, 'score'));
  return line;
}

function points(scores = {}, userId) {
  const other = Object.keys(scores).find((id) => id !== String(userId));
  return { own: scores[userId] ?? 0, other: scores[other] ?? 0 };
}

function text(tag, content, className) {
  const element = document.createElement(tag);
  element.textContent = content;
  element.className = className;
  return element;
}
