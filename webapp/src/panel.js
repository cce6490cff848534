// What one player sees: the quiz on top, what came over the wire below.

import { Player } from './player.js';
import { quizContent } from './quiz.js';

const FRAMES_KEPT = 100;
const SAMPLES_KEPT = 50;
const LONGEST_STRING = 20;
const KIND_LABELS = { replayed: 'replayed', state: 'present state' };

export class Phone {
  element = document.getElementById('phone').content.firstElementChild.cloneNode(true);
  player;

  #opponent;
  #mayAnswer; // (userId) => bool
  #onAnswer; // (userId, choice) => void
  #onChange;
  #latest = null; // payload of the latest duel_update
  #latency = new Latency();

  constructor({ number, seat, opponent, socketUrl, mayAnswer, onAnswer, onChange }) {
    this.#opponent = opponent;
    this.#mayAnswer = mayAnswer;
    this.#onAnswer = onAnswer;
    this.#onChange = onChange;
    this.player = new Player({
      fetchTicket: seat.fetchTicket,
      socketUrl,
      onChange: () => this.#render(),
      onFrame: (frame, kind) => this.#receive(frame, kind),
    });
    this.player.userId = seat.userId;
    this.element.id = this.element.dataset.testid = `phone-${number}`;
    this.element.dataset.seat = number;
    this.element.setAttribute('aria-label', `Phone of ${seat.name}`);
    this.#set('avatar', seat.name[0]);
    this.#set('name', seat.name);
    this.#part('network').addEventListener('click', () => this.#toggleNetwork());
    this.#render();
    this.#renderQuiz();
  }

  /** Tells when the push was made that got this position. */
  pushed(seq, time) {
    this.#latency.pushed(seq, time);
    this.#renderLatency();
  }

  #receive(frame, kind) {
    if (kind === 'live') this.#latency.arrived(frame.seq, performance.now());
    if (frame.type === 'duel_update') this.#latest = frame.payload;
    this.#listFrame(frame, kind);
    this.#renderLatency();
    if (kind) this.#renderQuiz();
  }

  #toggleNetwork() {
    if (this.player.active) this.player.drop();
    else this.player.connect();
  }

  #render() {
    const { state, detail, userId, position, recovered, active } = this.player;
    this.element.dataset.state = state;
    this.#set('state', state);
    this.#set('id', userId === null ? 'not connected yet' : `user ${userId}`);
    this.#set('detail', detail);
    this.#set('position', position ? `${position.epoch}:${position.seq}` : '–');
    this.#set('recovered', { true: 'yes', false: 'no', null: 'fresh' }[recovered]);
    this.#set('presence', this.#presence());
    this.#part('presence').dataset.online = this.#opponentOnline();
    this.#set('network', state === 'closed' ? 'Closed' : active ? 'Drop network' : 'Bring network back');
    this.#part('network').dataset.active = active;
    this.#part('network').disabled = state === 'closed';
    this.#part('quiz').inert = state !== 'online';
    this.#onChange();
  }

  #presence() {
    if (this.player.state !== 'online') return `${this.#opponent}: unknown`;
    return `${this.#opponent} is ${this.#opponentOnline() ? 'online' : 'offline'}`;
  }

  #opponentOnline() {
    const { state, online, userId } = this.player;
    return state === 'online' && [...online].some((id) => id !== userId);
  }

  #renderQuiz() {
    const { userId } = this.player;
    const content = quizContent(this.#latest, {
      userId,
      opponent: this.#opponent,
      mayAnswer: this.#mayAnswer(userId),
      onAnswer: (choice) => this.#onAnswer(userId, choice),
    });
    this.#part('quiz').replaceChildren(...content);
  }

  #renderLatency() {
    this.#set('latency', milliseconds(this.#latency.last));
    this.#set('median', milliseconds(this.#latency.median));
  }

  #listFrame({ type, ...fields }, kind) {
    const row = document.createElement('li');
    row.dataset.type = type;
    row.dataset.kind = kind;
    row.append(cell('b', type), cell('em', KIND_LABELS[kind] ?? ''), cell('code', shortJson(fields)));
    const frames = this.#part('frames');
    frames.prepend(row);
    if (frames.childElementCount > FRAMES_KEPT) frames.lastElementChild.remove();
  }

  #part(name) {
    return this.element.querySelector(`[data-testid="${name}"]`);
  }

  // Only on change: a status written anew is read out anew.
  #set(name, text) {
    const part = this.#part(name);
    if (part.textContent !== text) part.textContent = text;
  }
}

// The frame may overtake the answer to its own push, so whichever comes first waits for the other, by seq.
class Latency {
  #pushes = new Map(); // seq → time
  #arrivals = new Map(); // seq → time
  #samples = [];

  pushed(seq, time) {
    this.#note(this.#pushes, seq, time);
  }

  arrived(seq, time) {
    this.#note(this.#arrivals, seq, time);
  }

  get last() {
    return this.#samples.at(-1);
  }

  get median() {
    const sorted = this.#samples.toSorted((a, b) => a - b);
    const middle = sorted.length / 2;
    return sorted.length % 2 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  #note(times, seq, time) {
    times.set(seq, time);
    const pushed = this.#pushes.get(seq);
    const arrived = this.#arrivals.get(seq);
    if (pushed !== undefined && arrived !== undefined) {
      this.#pushes.delete(seq);
      this.#arrivals.delete(seq);
      this.#samples = [...this.#samples, arrived - pushed].slice(-SAMPLES_KEPT);
    } else if (times.size > SAMPLES_KEPT) {
      times.delete(times.keys().next().value);
    }
  }
}

function milliseconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(1)} ms` : '–';
}

function shortJson(fields) {
  return JSON.stringify(fields, (_, value) =>
    typeof value === 'string' && value.length > LONGEST_STRING ? `${value.slice(0, LONGEST_STRING)}…` : value,
  );
}

function cell(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
