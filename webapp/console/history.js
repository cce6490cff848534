// What the samples of the last ten minutes say. A row has gauges as they were, and rates since the sample before it. Where samples
// are missing there is a row without values, so that a chart has a gap there.

const MINUTE_MS = 60 * 1000;
/** How much is shown: the first that what is known fits into. */
const WINDOWS_MS = [2, 5, 10].map((minutes) => minutes * MINUTE_MS);
const WINDOW_MAX_MS = WINDOWS_MS.at(-1);

/** Samples further apart than this have a gap between them: two polls are missing. */
const GAP_MS = 2800;

const PUSH_BUCKETS = 'duelhub_push_duration_seconds_bucket{le="';

/** The families of counters that are shown by their label. */
const FAMILIES = {
  refused: 'duelhub_handshakes_refused_total{reason="',
  closed: 'duelhub_connections_closed_total{reason="',
  limits: 'duelhub_limits_reached_total{kind="',
};

export class History {
  /** Oldest first. `at` is the hub's clock in milliseconds; a row with `gap` has nothing else. */
  rows = [];
  /** Newest last: what happened to the series, as `{ at, text }`. */
  notes = [];
  node = null;
  #uptime = 0;

  /** Takes what the hub answered. */
  add(node) {
    const before = this.node;
    const elapsed = node.uptime_ms - this.#uptime;
    const restarted = before !== null && elapsed < 0;
    if (before && node.at_ms <= before.at_ms) {
      this.rows = [];
      this.notes = [{ at: node.at_ms, text: 'The clock of the hub was set back; the charts begin anew' }];
    } else if (restarted) {
      this.notes.push({ at: node.at_ms - node.uptime_ms, text: 'The hub started' });
    }
    const follows = before !== null && !restarted && elapsed > 0 && elapsed <= GAP_MS;
    if (before && !follows && this.rows.length > 0) this.rows.push({ at: before.at_ms + 1, gap: true });
    this.rows.push(rowOf(node, follows ? before : null, elapsed / 1000));
    this.node = node;
    this.#uptime = node.uptime_ms;
    this.#forget(node.at_ms - WINDOW_MAX_MS);
  }

  #forget(before) {
    const keep = this.rows.findIndex((row) => row.at >= before);
    if (keep > 0) this.rows.splice(0, keep);
    this.notes = this.notes.filter((note) => note.at >= before);
  }

  /** How much of the past charts show, in milliseconds. */
  windowUpTo(now) {
    const known = now - (this.rows[0]?.at ?? now);
    return WINDOWS_MS.find((window) => known <= window) ?? WINDOW_MAX_MS;
  }

  /** The newest row, if it has values. */
  get last() {
    return this.rows.at(-1) ?? null;
  }

  /**
   * The labels of a family that were counted since the hub started, the most frequent in the window first:
   * `{ word, inWindow, total }`.
   */
  counted(family) {
    if (!this.node) return [];
    const inWindow = new Map();
    for (const row of this.rows) {
      for (const [word, added] of Object.entries(row.added?.[family] ?? {})) {
        inWindow.set(word, (inWindow.get(word) ?? 0) + added);
      }
    }
    const totals = labelled(this.node.samples, FAMILIES[family]);
    const all = [...totals].filter(([, total]) => total > 0);
    const rows = all.map(([word, total]) => ({ word, total, inWindow: inWindow.get(word) ?? 0 }));
    return rows.sort((a, b) => b.inWindow - a.inWindow || b.total - a.total || a.word.localeCompare(b.word));
  }
}

/** What a row says of a node, and of what has happened since the sample before it, `seconds` ago. */
function rowOf(node, before, seconds) {
  const now = node.samples;
  const row = {
    at: node.at_ms,
    connections: now.duelhub_connections,
    duels: now.duelhub_duels,
    liveDuels: now.duelhub_live_duels,
    memory: now.process_resident_memory_bytes,
    descriptors: now.process_open_fds,
    disk: now.duelhub_store_bytes,
    sessions: now.duelhub_remembered_tickets,
    probe: node.health.probe_ms ?? null,
  };
  if (!before) return row;
  const then = before.samples;
  const rate = (name) => (now[name] - then[name]) / seconds;
  row.pushes = rate('duelhub_pushes_total{kind="new"}');
  row.deliveries = rate('duelhub_deliveries_total');
  row.cpu = 100 * rate('process_cpu_seconds_total');
  row.commits = rate('duelhub_store_commits_total');
  row.failures = rate('duelhub_store_failures_total');
  row.repairs = rate('duelhub_sweep_repairs_total');
  const buckets = bucketsBetween(then, now);
  row.p50 = quantile(0.5, buckets);
  row.p99 = quantile(0.99, buckets);
  row.added = {};
  row.rates = {};
  for (const [family, prefix] of Object.entries(FAMILIES)) {
    const earlier = labelled(then, prefix);
    const added = [...labelled(now, prefix)].map(([word, value]) => [word, value - (earlier.get(word) ?? 0)]);
    row.added[family] = Object.fromEntries(added.filter(([, more]) => more > 0));
    row.rates[family] = Object.fromEntries(added.map(([word, more]) => [word, more / seconds]));
  }
  return row;
}

/** The samples whose names begin with `prefix`, by the label's value. */
function labelled(samples, prefix) {
  const found = new Map();
  for (const [name, value] of Object.entries(samples)) {
    if (name.startsWith(prefix)) found.set(name.slice(prefix.length, -2), value);
  }
  return found;
}

/** How many pushes took at most so many seconds, between two samples: `[seconds, pushes]`, the shortest first. */
function bucketsBetween(then, now) {
  const earlier = labelled(then, PUSH_BUCKETS);
  const buckets = [...labelled(now, PUSH_BUCKETS)].map(([le, pushes]) =>
    [le === '+Inf' ? Infinity : Number(le), pushes - (earlier.get(le) ?? 0)]);
  return buckets.sort(([a], [b]) => a - b);
}

/**
 * A quantile in milliseconds, as Prometheus' histogram_quantile has it: evenly spread within a bucket. null: there was no push.
 */
export function quantile(q, buckets) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const rank = q * all;
  const at = buckets.findIndex(([, pushes]) => pushes >= rank);
  const [begin, below] = at > 0 ? buckets[at - 1] : [0, 0];
  const [end, upTo] = buckets[at];
  // Longer than the longest bucket says: at least its bound.
  if (end === Infinity) return begin * 1000;
  return (begin + ((end - begin) * (rank - below)) / (upTo - below)) * 1000;
}
