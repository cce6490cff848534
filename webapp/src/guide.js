// The first minute: what to try, one after the other. A step is done when it was seen to happen, in whatever order.

const STEPS = [
  ['push', 'Push a question'],
  ['cut', 'Cut Linus’s network'],
  ['miss', 'Push again: Linus misses it'],
  ['replay', 'Bring it back: it is replayed'],
  ['paste', 'Paste the curl line in a terminal'],
];

const READ_ON = ['That is all of it. Read on: ', 'the guide', 'docs/README.md'];

export class Guide {
  #element;
  #done = new Set();

  constructor(element) {
    this.#element = element;
    element.hidden = false;
    this.#render();
  }

  done(step) {
    if (this.#done.has(step)) return;
    this.#done.add(step);
    this.#render();
  }

  #render() {
    const next = STEPS.findIndex(([step]) => !this.#done.has(step));
    const items = STEPS.map(([step, words], index) => {
      const item = document.createElement('li');
      item.dataset.number = index + 1;
      item.dataset.done = this.#done.has(step);
      item.textContent = words;
      if (index === next) item.setAttribute('aria-current', 'step');
      if (this.#done.has(step)) item.append(unseen(', done'));
      return item;
    });
    if (next === -1) {
      const item = document.createElement('li');
      item.className = 'end';
      item.setAttribute('aria-current', 'step');
      const [words, name, address] = READ_ON;
      const link = document.createElement('a');
      link.href = address;
      link.textContent = name;
      item.append(words, link);
      items.push(item);
    }
    this.#element.replaceChildren(...items);
  }
}

function unseen(text) {
  const element = document.createElement('span');
  element.className = 'unseen';
  element.textContent = text;
  return element;
}
