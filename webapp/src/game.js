// The quiz the backend runs: which question is on, who has answered, and what each player may see of it.

// Short, so that an option fits into a quarter of a small panel.
const QUESTIONS = [
  ['Which planet has the shortest day?', ['Mars', 'Earth', 'Jupiter', 'Neptune'], 2],
  ['How many hearts does an octopus have?', ['One', 'Two', 'Three', 'Eight'], 2],
  ['Which metal is liquid at room temperature?', ['Mercury', 'Tin', 'Lead', 'Zinc'], 0],
  ['Which ocean is the largest?', ['Atlantic', 'Pacific', 'Indian', 'Arctic'], 1],
  ['Which planet is the nearest to the Sun?', ['Venus', 'Mars', 'Earth', 'Mercury'], 3],
  ['Who wrote “Eugene Onegin”?', ['Gogol', 'Pushkin', 'Chekhov', 'Tolstoy'], 1],
].map(([question, options, correct]) => ({ question, options, correct }));

export class Game {
  round = 0;
  finished = false;
  #scores = new Map(); // user id → points
  #choices = new Map(); // user id → option chosen in this round
  #settled = true;

  join(userId) {
    if (!this.#scores.has(userId)) this.#scores.set(userId, 0);
  }

  canAnswer(userId) {
    return this.round > 0 && !this.finished && this.#scores.has(userId) && !this.#choices.has(userId);
  }

  answer(userId, choice) {
    this.#choices.set(userId, choice);
    if (this.#choices.size === this.#scores.size) this.#settle();
  }

  nextRound() {
    this.#settle();
    this.round += 1;
    this.#choices.clear();
    this.#settled = false;
  }

  finish() {
    this.#settle();
    this.finished = true;
  }

  /** What everyone may see. */
  payload() {
    const scores = Object.fromEntries(this.#scores);
    if (this.finished) return { finished: true, round: this.round, scores };
    const { question, options } = this.#current;
    return { round: this.round, answered: [...this.#choices.keys()], scores, question, options };
  }

  /** One view per player: only who has answered learns which option is right. */
  views() {
    return [...this.#scores.keys()].map((userId) => ({ userId, payload: this.#viewOf(userId) }));
  }

  #viewOf(userId) {
    if (!this.#choices.has(userId)) return this.payload();
    return { you: { choice: this.#choices.get(userId), correct: this.#current.correct }, ...this.payload() };
  }

  get #current() {
    return QUESTIONS[Math.max(this.round - 1, 0) % QUESTIONS.length];
  }

  // Points are counted late on purpose: a score that moved at once would tell the opponent how the answer was.
  #settle() {
    if (this.#settled) return;
    this.#settled = true;
    for (const [userId, choice] of this.#choices) {
      if (choice === this.#current.correct) this.#scores.set(userId, this.#scores.get(userId) + 1);
    }
  }
}
