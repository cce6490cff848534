// The duel as a player sees it, made from the latest event.

import { points } from './words.js';

/** The elements for `payload`; anything the demo's own game did not make is shown as it is. */
export function quizContent(payload, { userId, opponent, mayAnswer, onAnswer }) {
  if (!payload) return [text('p', 'Waiting for the first question', 'wait')];
  if (payload.finished) return result(payload, userId, opponent);
  if (!Array.isArray(payload.options)) return other(payload);
  const options = document.createElement('div');
  options.className = 'options';
  options.append(...payload.options.map((label, index) => option(label, index, payload.you, mayAnswer, onAnswer)));
  return [
    heading(payload, userId, opponent),
    text('p', payload.question, 'question'),
    options,
    text('p', verdict(payload, { userId, opponent, mayAnswer }), 'verdict'),
  ];
}

function option(label, index, you, mayAnswer, onAnswer) {
  const button = text('button', label, 'option');
  button.type = 'button';
  button.disabled = !mayAnswer;
  const mark = you && (index === you.correct ? 'right' : index === you.choice ? 'wrong' : null);
  if (mark) {
    button.dataset.mark = mark;
    // Not by colour alone.
    button.append(text('span', mark === 'right' ? ' ✓' : ' ✗', 'mark'));
  }
  button.addEventListener('click', () => onAnswer(index));
  return button;
}

function verdict({ you, answered }, { userId, opponent, mayAnswer }) {
  const own = you && (you.choice === you.correct ? 'Right.' : 'Not this time.');
  const theirs = answered?.some((id) => id !== userId) && `${opponent} has answered.`;
  const invitation = mayAnswer && 'Tap an answer.';
  return [own, theirs, invitation].filter(Boolean).join(' ') || 'Nobody has answered yet.';
}

function result(payload, userId, opponent) {
  const { own, other } = points(payload.scores, userId);
  const words = own > other ? 'You won' : own < other ? 'You lost' : 'A draw';
  return [text('p', 'Result', 'round'), text('p', words, 'outcome'), score(own, other, opponent, 'final')];
}

function other(payload) {
  const { duel_id: _, ...fields } = payload;
  const words = Object.keys(fields).length === 1 && fields.question;
  return [text('p', 'An event', 'round'), words ? text('p', words, 'question') : text('pre', JSON.stringify(fields, null, 2), 'raw')];
}

function heading({ round, scores }, userId, opponent) {
  const { own, other } = points(scores, userId);
  const line = text('p', `Question ${round}`, 'round');
  line.append(score(own, other, opponent, 'score'));
  return line;
}

function score(own, other, opponent, className) {
  const element = text(className === 'final' ? 'p' : 'span', `${own} : ${other}`, className);
  element.title = `own points : ${opponent}’s`;
  return element;
}

function text(tag, content, className) {
  const element = document.createElement(tag);
  element.textContent = content;
  element.className = className;
  return element;
}
