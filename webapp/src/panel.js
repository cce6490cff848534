// One player: the connection of the client package, and what the player sees of the duel.

import { connect } from '../vendor/duelhub.js';
import { Network } from './network.js';
import { quizContent } from './quiz.js';
import { rawState, stateWords } from './words.js';

const COUNT_EVERY_MS = 250;

export class Panel {
  element = document.getElementById('player').content.firstElementChild.cloneNode(true);
  name;
  userId; // null until known
  isCut = false;

  #opponent;
  #network = new Network();
  #duel = null;
  #ticket;
  #url;
  #duelId;
  #on; // { answer(userId, choice), mayAnswer(userId), event(event, at), connected(recovered), cut(), change() }
  #latest = null; // payload of the latest duel_update
  #counting;

  constructor({ number, seat, opponent, url, duelId, on }) {
    this.name = seat.name;
    this.userId = seat.userId;
    this.#opponent = opponent;
    this.#ticket = seat.ticket;
    this.#url = url;
    this.#duelId = duelId;
    this.#on = on;
    this.element.dataset.testid = `phone-${number}`;
    this.element.setAttribute('aria-label', `${seat.name}, a player`);
    this.#set('name', seat.name);
    this.#part('network').addEventListener('click', () => this.#toggleNetwork());
    this.#render();
    this.renderQuiz();
  }

  connect() {
    this.#duel = connect({
      url: this.#url,
      duelId: this.#duelId,
      WebSocket: this.#network.WebSocket,
      ticket: (context) => {
        if (this.isCut) throw new Error('There is no network');
        return this.#ticket(context);
      },
    });
    this.#duel.on('state', () => this.#render());
    this.#duel.on('presence', () => this.#render());
    this.#duel.on('connected', ({ userId, recovered }) => {
      this.userId = userId;
      this.element.dataset.recovered = recovered;
      this.#on.connected(recovered);
      this.#render();
      this.renderQuiz();
    });
    this.#duel.on('event', (event) => this.#receive(event));
    this.#duel.on('duel_closed', (closed) => this.#receive({ type: 'duel_closed', duelId: this.#duelId, ...closed }));
    this.#render();
  }

  close() {
    this.#duel?.close();
    clearInterval(this.#counting);
  }

  get isOnline() {
    return this.#duel?.state.name === 'online';
  }

  renderQuiz() {
    const content = quizContent(this.#latest, {
      userId: this.userId,
      opponent: this.#opponent,
      mayAnswer: this.isOnline && this.#on.mayAnswer(this.userId),
      onAnswer: (choice) => this.#on.answer(this.userId, choice),
    });
    const quiz = this.#part('quiz');
    const focused = [...quiz.querySelectorAll('.option')].indexOf(document.activeElement);
    const hadFocus = quiz.contains(document.activeElement);
    quiz.replaceChildren(...content);
    if (!hadFocus) return;
    // Whoever answers by the keyboard stays where they are, or close by if there is nothing to answer.
    const option = quiz.querySelectorAll('.option')[focused];
    (option?.disabled === false ? option : quiz).focus();
  }

  #receive(event) {
    this.#on.event(event, performance.now());
    this.element.dataset.seq = event.seq;
    if (event.type === 'duel_update') this.#latest = event.payload;
    this.renderQuiz();
  }

  #toggleNetwork() {
    this.isCut = !this.isCut;
    if (this.isCut) {
      this.#network.cut();
      this.#on.cut();
    } else {
      this.#network.bringBack();
      // A browser says `online` to its window then, which the package takes as this.
      this.#duel.wake();
    }
    this.#render();
  }

  #render() {
    const state = this.#duel?.state ?? { name: 'connecting' };
    const { name } = state;
    const isOver = name === 'closed';
    const wasOnline = this.element.dataset.state === 'online';
    this.element.dataset.state = name;
    // An attempt without a network fails at once: it is no news.
    this.#set('state', this.isCut && name === 'connecting' ? stateWords({ name: 'waiting' }) : stateWords(state));
    this.#part('state').title = rawState(state);
    this.#set('id', this.userId === null ? '' : `user ${this.userId}`);
    this.#set('presence', this.#presence());
    const press = this.isCut ? 'Bring network back' : 'Cut network';
    this.#set('network', press);
    this.#part('network').setAttribute('aria-label', `${press}: ${this.name}`);
    this.#part('network').dataset.cut = this.isCut;
    this.#part('network').disabled = isOver;
    this.#count(state);
    if (wasOnline !== this.isOnline) this.renderQuiz();
    this.#on.change();
  }

  #presence() {
    if (!this.isOnline) return '';
    const others = this.#duel.online.filter((id) => id !== this.userId);
    return `${this.#opponent} is ${others.length > 0 ? 'online' : 'away'}`;
  }

  /** Counts down to the next attempt. Beside the state, so that it is not read out every second. */
  #count({ name, nextAttemptAt }) {
    clearInterval(this.#counting);
    const show = () => {
      const seconds = Math.ceil((nextAttemptAt - Date.now()) / 1000);
      this.#set('countdown', seconds > 0 ? `in ${seconds} s` : '');
    };
    if (name === 'waiting' && nextAttemptAt !== null) {
      show();
      this.#counting = setInterval(show, COUNT_EVERY_MS);
    } else if (!(this.isCut && name === 'connecting')) {
      this.#set('countdown', '');
    }
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
