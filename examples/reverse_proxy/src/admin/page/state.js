// What the numbers mean: how the upstreams fare, and what to say of it.

import { count, percent, time, whole } from "./format.js";

/* The state of one upstream. `second`: what happened to all of them in the last second. */
export function origin(upstream, second, alone) {
  if (upstream.failed_in_a_row > 0) return alone && second?.answers ? "failing" : "down";
  return second?.calls ? "up" : "idle";
}

/* How the store that the proxies share does. */
export function store({ is_up, round_trip_ms }) {
  if (!is_up) return { state: "failing", words: "The store is not in use: this proxy coalesces on its own" };
  return { state: "up", words: round_trip_ms === null ? "The store is in use" : `The store answers in ${time(round_trip_ms)}` };
}

/* What must not be overlooked, or null. */
export function alert(event, second) {
  const broken = event.upstreams.filter(upstream => upstream.failed_in_a_row > 0);
  const all = broken.length === event.upstreams.length, many = event.upstreams.length > 1;
  const causes = [...new Set(broken.map(upstream => (many ? upstream.url + ": " : "") + upstream.cause))].join("; ");
  const { requests = 0, errors = 0, calls = 0, answers = 0, failures = 0, ms = 1 } = second ?? {};
  const least = Math.min(...broken.map(upstream => upstream.failed_in_a_row));
  if (!answers && !failures && all && least < 3) {
    return { bad: false, title: least === 1 ? "The last call failed" : "The last two calls failed", text: "Cause: " + causes };
  }
  if (!answers && (failures || all)) {
    const title = !many ? "The origin is down" : all ? "All origins are down" : `${broken.length} of ${event.upstreams.length} origins are down`;
    const what = failures ? `Every call of the last second failed, and clients get ${whole(errors * 1e3 / ms)} errors per second. `
      : `The last ${count(least, "call", "calls")} failed. `;
    return { bad: true, title, text: what + "Cause: " + causes };
  }
  if (failures) {
    return { bad: true, title: `${percent(100 * failures / (failures + answers))} of the calls fail`, text: "Cause: " + causes };
  }
  if (broken.length && many) {
    return { bad: false, title: `${count(broken.length, "origin", "origins")} of ${event.upstreams.length} can't be reached`,
      text: "The others get the requests. Cause: " + causes };
  }
  if (errors && errors >= requests / 2) {
    return { bad: true, title: `${percent(100 * Math.min(1, errors / requests))} of the responses are errors`, text: "The origin answers with 5xx." };
  }
  // Connecting takes a moment.
  if (event.replicas && !event.replicas.is_up && event.uptime_ms > 3e3) {
    return { bad: false, title: "The store is not in use", text: "It is down, slow, or refuses this proxy. Each proxy makes its own calls meanwhile." };
  }
  if (event.audit_differed) {
    return { bad: false, title: `${count(event.audit_differed, "audited answer differs", "audited answers differ")}`,
      text: `Of ${whole(event.audited)} since the start. The log says what differs, and by which request fields.` };
  }
  if (event.draining) {
    return { bad: false, title: "The proxy is ending", text: "Requests in flight are being answered; nobody new is let in." };
  }
  return null;
}
