// One direction of a connection: carries bytes as late and as slowly as it is told, in their order.

const WAITING_BYTES_MAX = 256 * 1024;
// Of a chunk, so that a slow lane drips rather than gushes.
const SLICE_MS = 50;

export class Lane {
  #from;
  #to;
  #conditions = { hole: true };
  #waiting = []; // { bytes (none: the end), due }
  #waitingBytes = 0;
  #freeAt = 0;
  #lastDue = 0;
  #timer = null;

  /** It begins as a black hole; `read` is shown what goes through. */
  constructor(from, to, read = () => {}) {
    [this.#from, this.#to] = [from, to];
    from.on('data', (bytes) => {
      read(bytes);
      this.#take(bytes);
    });
    from.on('end', () => this.#put(null));
    to.on('drain', () => this.#flow());
    to.on('close', () => clearTimeout(this.#timer));
  }

  get isHole() {
    return this.#conditions.hole === true;
  }

  /** `{ hole }`, or any of `{ bytesPerSecond, delayMs, jitterMs }`. */
  shape(conditions) {
    this.#conditions = conditions;
    if (conditions.hole) this.#from.pause();
    this.#flow();
  }

  #take(bytes) {
    const { bytesPerSecond } = this.#conditions;
    const slice = bytesPerSecond ? Math.max(1, Math.floor((bytesPerSecond * SLICE_MS) / 1000)) : bytes.length;
    for (let at = 0; at < bytes.length; at += slice) this.#put(bytes.subarray(at, at + slice));
  }

  #put(bytes) {
    const { bytesPerSecond, delayMs = 0, jitterMs = 0 } = this.#conditions;
    const length = bytes?.length ?? 0;
    this.#freeAt = Math.max(this.#freeAt, Date.now()) + (bytesPerSecond ? (length * 1000) / bytesPerSecond : 0);
    // TCP keeps the order, so what is late holds up what comes after it.
    this.#lastDue = Math.max(this.#lastDue, this.#freeAt + delayMs + Math.random() * jitterMs);
    this.#waiting.push({ bytes, due: this.#lastDue });
    this.#waitingBytes += length;
    this.#flow();
  }

  #flow() {
    clearTimeout(this.#timer);
    while (!this.isHole && this.#waiting.length > 0 && !this.#to.writableNeedDrain) {
      const wait = this.#waiting[0].due - Date.now();
      if (wait > 0) {
        this.#timer = setTimeout(() => this.#flow(), wait);
        break;
      }
      this.#carry(this.#waiting.shift().bytes);
    }
    const full = this.#waitingBytes >= WAITING_BYTES_MAX || this.#to.writableNeedDrain;
    if (this.isHole || full) this.#from.pause();
    else this.#from.resume();
  }

  #carry(bytes) {
    if (this.#to.destroyed) return;
    this.#waitingBytes -= bytes?.length ?? 0;
    if (bytes) this.#to.write(bytes);
    else this.#to.end();
  }
}
