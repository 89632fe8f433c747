// The events of the last minute. Rates and peaks are those of the last second, by the proxy's clock.

export const SPAN = 60e3;
const WINDOW = 1e3;

export class LastMinute {
  points = [];
  #samples = [];

  /* Takes an event; returns what happened in the last second, or null if there is no second yet. */
  take(event) {
    const last = this.#samples.at(-1);
    if (last && (event.requests < last.requests || event.uptime_ms < last.uptime_ms)) {
      // The proxy was started again.
      this.#samples = this.points = [];
    }
    this.#samples = [...this.#samples.filter(old => event.uptime_ms - old.uptime_ms <= WINDOW + 200), event];
    const first = this.#samples[0], ms = event.uptime_ms - first.uptime_ms;
    if (ms <= 0) return null;
    const since = name => event[name] - first[name];
    const peak = name => Math.max(...this.#samples.map(sample => sample.peak[name]));
    const second = {
      requests: since("requests"), errors: since("errors"), calls: since("upstream_calls"),
      answers: since("upstream_answers"), failures: since("upstream_failures"), ms,
    };
    const down = second.failures > 0 && second.answers === 0;
    this.points = [...this.points.filter(old => event.uptime_ms - old.at <= SPAN + 1e3), {
      at: event.uptime_ms,
      asked: second.requests * 1e3 / ms, called: second.calls * 1e3 / ms, errors: second.errors * 1e3 / ms,
      // Of errors there is nothing to save.
      saved: second.requests && !down ? 100 * Math.max(0, 1 - second.calls / second.requests) : null,
      p50: event.latency_ms.p50, p99: event.latency_ms.p99,
      flights: peak("in_flight"), waiters: peak("waiters"), buffered: peak("buffered_bytes"),
    }];
    return second;
  }

  get idle() {
    return this.points.every(point => point.asked === 0);
  }
}
