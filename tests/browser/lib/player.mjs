// A player with the stand-in WebApp open in a browser window of their own.

import { equal, until } from './check.mjs';
import { DOMAIN } from './stack.mjs';

/** Opens the WebApp; `client: 'resuming'` for the one that resumes. */
export async function openPlayer(stack, { name, duel, initData, client = '' }) {
  const context = await stack.browser.newContext();
  const page = await context.newPage();
  const fragment = initData ? `#tgWebAppData=${encodeURIComponent(initData)}` : '';
  await page.goto(`${stack.originOf(DOMAIN)}/?duel=${duel}&client=${client}${fragment}`);
  if (initData) stack.evidence.initData(initData);
  return new Player(name, page, stack.evidence);
}

class Player {
  page;

  #name;
  #evidence;

  constructor(name, page, evidence) {
    this.#name = name;
    this.page = page;
    this.#evidence = evidence;
  }

  /** Everything the page has seen so far. */
  async seen() {
    const seen = await this.page.evaluate(() => {
      const { updates, stopped, frames, tickets, answers, closes } = window.app ?? {};
      return { updates, stopped, frames, tickets, answers, closes };
    });
    seen.frames?.forEach(({ resume_ticket }) => resume_ticket && this.#evidence.ticket(resume_ticket));
    seen.tickets?.forEach((ticket) => this.#evidence.ticket(ticket));
    return seen;
  }

  /** Waits until what the page has seen satisfies `condition`, and returns that. */
  async until(what, condition) {
    let last;
    const satisfied = async () => {
      last = await this.seen();
      return last.frames && condition(last) && last;
    };
    try {
      return await until(`${this.#name}: ${what}`, satisfied);
    } catch (error) {
      throw new Error(`${error.message}\n${this.#name} has seen ${JSON.stringify(last)}`, { cause: error });
    }
  }

  /** Waits for the frame of `type` with these fields, the `nth` such. */
  async untilFrame(type, fields = {}, nth = 1) {
    const matching = ({ frames }) => frames.filter((frame) => frame.type === type && includes(frame, fields));
    const seen = await this.until(`${type} ${JSON.stringify(fields)}`, (now) => matching(now).length >= nth);
    return matching(seen)[nth - 1];
  }

  /** The ids in the answers that the page itself could read. */
  async checkAnswers() {
    const { answers } = await this.seen();
    for (const { requestId, answer } of answers) {
      equal(answer.request_id, requestId, `${this.#name}: request_id equals X-Request-Id in the page`);
      this.#evidence.requestIds.add(requestId);
    }
  }
}

function includes(frame, fields) {
  return Object.entries(fields).every(([key, value]) => frame[key] === value);
}
