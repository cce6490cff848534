// The hub's clock, as seen from here. Each answered ping bounds it: the hub's time was read between the ping and the pong.

interface Sample {
  /** The hub's time minus `performance.now()`. */
  offset: number;
  /** Half the round trip: how far off that may be. */
  error: number;
  at: number;
  /** How the device's clock stood. It jumps when somebody sets it, and when `performance.now()` stood still in a sleep. */
  wall: number;
}

/** The hub says whole milliseconds, rounded down. */
const RESOLUTION_MS = 1;

/** How far two quartz clocks drift apart. */
const DRIFT = 50e-6;

/** Further samples are forgotten, the oldest first. */
const SAMPLES_MAX = 16;

/** A larger jump of the device's clock makes all samples doubtful. */
const JUMP_MS = 250;

const wallNow = (): number => Date.now() - performance.now();

export class ServerClock {
  #samples: Sample[] = [];

  /** Notes that the hub said `serverTimeMs` between `sentAt` and now. */
  sample(sentAt: number, serverTimeMs: number): void {
    const at = performance.now();
    const error = (at - sentAt + RESOLUTION_MS) / 2;
    const offset = serverTimeMs + RESOLUTION_MS / 2 - (sentAt + at) / 2;
    this.#samples = [...this.#samples.slice(1 - SAMPLES_MAX), { offset, error, at, wall: wallNow() }];
  }

  /** Returns the hub's time minus `Date.now()`, and how far off that may be: infinite until the hub has said its time. */
  get reading(): { offsetMs: number; uncertaintyMs: number } {
    const now = performance.now();
    const wall = wallNow();
    const errorOf = ({ error, at, wall: then }: Sample): number =>
      Math.abs(wall - then) > JUMP_MS ? Infinity : error + (now - at) * DRIFT;
    let best = this.#samples.at(-1);
    if (!best) return { offsetMs: 0, uncertaintyMs: Infinity };
    // The smallest round trip wins.
    for (const sample of this.#samples) if (errorOf(sample) < errorOf(best)) best = sample;
    return { offsetMs: best.offset - wall, uncertaintyMs: errorOf(best) };
  }
}
