// Ties the events to the page.

import { draw } from "./chart.js";
import { bytes, count, percent, time, whole } from "./format.js";
import { LastMinute } from "./last_minute.js";
import { alert, origin, store } from "./state.js";

const $ = id => document.getElementById(id);
const make = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const canvases = [...document.querySelectorAll("canvas")];
const VALUES = {
  asked: whole, called: whole, errors: whole, saved: percent, p50: time, p99: time, flights: whole, waiters: whole, buffered: bytes,
};
const saved = s => s.requests ? percent(100 * Math.max(0, 1 - s.upstream_calls / s.requests)) : "–";
const audited = s => whole(s.audited) + (s.audited ? ` (${percent(100 * s.audited / s.requests)})` : "");
const TOTALS = [["Requests", "requests"], ["Origin calls", "upstream_calls"], ["Calls saved", saved], ["Errors (5xx)", "errors"],
  ["502 and 504", "upstream_failures"], ["Led", "led"], ["Followed", "followed"], ["Made own call", "forwarded"], ["Bypassed", "bypassed"],
  ["Tried again", "upstream_retries"], ["Audited", audited], ["Audits that differed", "audit_differed"]];
/* Of the calls that this proxy would have made on its own: what became of them among all. */
const SHARED = [["Led for all", r => r.led], ["Followed another", r => r.followed], ["Took over the lead", r => r.takeovers],
  ["Alone: store slow", r => r.alone.slow], ["Alone: store down", r => r.alone.down], ["Alone: call is short", r => r.alone.short],
  ["Alone: not shared", r => r.alone.told]];
for (const [list, names] of [["totals", TOTALS], ["shared", SHARED]]) for (const [name] of names) {
  const box = make("div");
  box.append(make("dt", name), make("dd", "–"));
  $(list).append(box);
}
const minute = new LastMinute();
/* By how much this page's clock is ahead of the proxy's; when the last event came. */
let ahead = 0, heard = performance.now(), pointer = { canvas: null, x: 0 };

// ===== an event =====

function take(event) {
  const second = minute.take(event), point = minute.points.at(-1);
  heard = performance.now();
  ahead = heard - event.uptime_ms;
  if (point) for (const name in VALUES) $(name).textContent = point[name] === null ? "–" : VALUES[name](point[name]);
  TOTALS.forEach(([, of], i) => $("totals").children[i].lastChild.textContent = typeof of === "string" ? whole(event[of]) : of(event));
  $("idle").textContent = event.requests ? "No requests in the last minute" : "Waiting for the first request";
  $("idle").hidden = !minute.idle;
  showOrigins(event, second);
  $("audit").hidden = !event.audit;
  $("audit").textContent = event.audit === 1 ? "audit: nothing is coalesced" : `audit: ${percent(100 * event.audit)} of what could be shared`;
  showReplicas(event.replicas);
  showHot(event.hot);
  $("switch").disabled = !event.layer;
  $("switch").setAttribute("aria-checked", event.enabled);
  $("switch").lastChild.textContent = event.layer ? "Coalesce requests" : "Started without the layer";
  say(alert(event, second));
  // For who looks from outside.
  Object.assign(document.body.dataset, { stats: JSON.stringify(event), points: minute.points.length });
  if (still.matches) drawAll();
}

function showOrigins(event, second) {
  const alone = event.upstreams.length === 1;
  const shown = event.upstreams.map(upstream => {
    const state = origin(upstream, second, alone);
    const words = { up: "", idle: "", failing: " (fails)", down: " (down)" }[state];
    return make("span", upstream.url.replace(/\/$/, "") + words, { className: "origin " + state });
  });
  if (shown.map(span => span.outerHTML).join("") !== $("origins").innerHTML) $("origins").replaceChildren(...shown);
}

function showReplicas(replicas) {
  $("across").hidden = !replicas;
  if (!replicas) return;
  const { state, words } = store(replicas);
  if ($("store").textContent !== words) $("store").textContent = words;
  $("store").className = "origin " + state;
  SHARED.forEach(([, of], i) => $("shared").children[i].lastChild.textContent = whole(of(replicas)));
}

function showHot(hot) {
  $("hot").closest("table").hidden = !hot.length;
  $("cold").hidden = hot.length > 0;
  $("hot").replaceChildren(...hot.map(({ path, requests, saved }) => {
    const row = make("tr"), last = make("td", whole(saved));
    last.append(make("small", percent(100 * saved / requests)));
    row.append(make("td", path), make("td", whole(requests)), last);
    return row;
  }));
}

// ===== what must not be overlooked =====

function say(what) {
  const [title, text] = $("alert").children;
  // Said once, and not with each event.
  if (title.textContent !== (what?.title ?? "")) title.textContent = what?.title ?? "";
  if (text.textContent !== (what?.text ?? "")) text.textContent = what?.text ?? "";
  $("alert").hidden = !what;
  $("alert").classList.toggle("bad", what?.bad ?? false);
  document.title = (what ? what.title + " · " : "") + "Singleflight reverse proxy";
}

function connected(yes, words) {
  if ($("link").textContent !== words) $("link").textContent = words;
  $("link").classList.toggle("lost", !yes);
  document.body.classList.toggle("stale", !yes);
  for (const control of document.querySelectorAll("button, input")) control.disabled = !yes;
}

function lost(words) {
  connected(false, words);
  const age = Math.round((performance.now() - heard) / 1e3);
  say({ bad: true, title: "No connection to the proxy", text: minute.points.length ? `What you see is ${age} s old.` : "" });
}

// ===== the connection =====

function connect() {
  const events = new EventSource("events");
  events.onmessage = event => { connected(true, "live"); take(JSON.parse(event.data)); };
  events.onerror = () => {
    lost("connection lost, trying again");
    if (events.readyState !== EventSource.CLOSED) return;
    // It was refused: the browser does not try again.
    setTimeout(connect, 5e3);
  };
}
/* A connection can be dead without an error. */
setInterval(() => { if (minute.points.length && performance.now() - heard > 3e3) lost("connection lost, trying again"); }, 1e3);

// ===== charts =====

function drawAll() {
  const last = minute.points.at(-1)?.at ?? 0;
  // A little behind, so that the lines move evenly although events come in steps; no further than is known.
  const now = still.matches ? last : Math.min(performance.now() - ahead - 300, last + 300);
  const end = document.body.classList.contains("stale") ? "last heard" : "now";
  for (const canvas of canvases) draw(canvas, minute.points, now, end, pointer.canvas === canvas ? pointer.x : null);
}
(function frame() { if (!still.matches) drawAll(); requestAnimationFrame(frame); })();
for (const canvas of canvases) {
  canvas.onpointermove = event => { pointer = { canvas, x: event.offsetX }; };
  canvas.onpointerleave = () => { pointer = { canvas: null, x: 0 }; };
}

// ===== controls =====

$("switch").onclick = () => fetch("enabled?on=" + ($("switch").getAttribute("aria-checked") !== "true"), { method: "POST" });

async function forget(what) {
  const answer = await fetch("forget?" + what, { method: "POST" }).catch(() => null);
  $("forgotten").textContent = !answer ? "The proxy does not answer." : !answer.ok ? await answer.text()
    : count((await answer.json()).forgotten, "call", "calls") + " forgotten.";
}
$("forget").onsubmit = event => { event.preventDefault(); forget("uri=" + encodeURIComponent($("uri").value)); };
$("forget-all").onclick = () => forget("all=true");

connect();
