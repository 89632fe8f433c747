#!/usr/bin/env python3
"""Draws benches/results.svg from the JSON in benches/results, and writes the README's section "What it costs".

    benches/plot.py              # both, from the results that are there
    benches/plot.py --measure    # first measures again: group, layer, and the proxy if wrk is installed (ten minutes)
    benches/plot.py --check      # writes nothing; fails if the plot or the README says something else than the results

Python's standard library and git's checkout suffice. Leave the machine alone while it measures: a result that began on a
busy machine says so.
"""
import argparse, json, math, os, pathlib, shutil, subprocess
from xml.sax.saxutils import escape

BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
README, SVG, RESULTS = ROOT / "README.md", BENCHES / "results.svg", BENCHES / "results"
OURS = "tower-singleflight"
# A peer within so much of us is level with us, neither faster nor slower.
LEVEL = 0.05
# How the results name a contestant: how we do, and the crate whose version counts.
PEERS = {
    OURS: (OURS, OURS),
    "mutex-map-of-shared": ("Mutex + Shared", "futures-util"),
    "singleflight-async": ("singleflight-async", "singleflight-async"),
    "rs-singleflight": ("rs-singleflight", "rs-singleflight"),
    "async_singleflight": ("async_singleflight", "async_singleflight"),
    "quick_cache": ("quick_cache", "quick_cache"),
    "moka": ("moka", "moka"),
    "tower-resilience-coalesce, method and URI": ("tower-resilience-coalesce", None),
}
# The README's rows: scenario, what the table calls it, what the sentence calls it. Of the layer they are optional.
ROWS = [
    ("solo, ready", "alone, the work ready at once", "alone"),
    ("solo, one yield", "alone, the work once `Pending`", "once `Pending`"),
    ("distinct keys, 64 tasks, workers 4", "64 tasks on 4 workers, distinct keys", "distinct keys"),
    ("hot key, 64 tasks, workers 4", "64 tasks on 4 workers, one hot key", "hot key"),
    ("zipf keys, 64 tasks, workers 4", "64 tasks on 4 workers, keys by Zipf's law", "Zipf"),
    ("fan-out to 10", "fan-out to 10 callers, 1 worker", "fan-out to 10"),
    ("fan-out to 1000, workers 4", "fan-out to 1,000 callers, 4 workers", "to 1,000"),
]
LAYER_ROWS = [
    ("solo", "the layer, alone", "the layer alone"),
    ("hot, 64 callers of one key", "the layer, 64 callers of one key, each", "the layer with 64 callers"),
]
LAYER_TITLES = {"solo": "alone", "bypassed": "not coalesced", "hot, 64 callers of one key": "64 of one key, each", "axum's Router, solo": "alone, over axum"}


# ===== the results =====

def load(name):
    """What benches/results.rs wrote; None if it has not."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return None
    data = json.loads(file.read_text())
    data["scenarios"] = {}
    for row in data["timings"]:
        data["scenarios"].setdefault(row["scenario"], {})[row["contestant"]] = row
    data["counted"] = {(row["contestant"], row["what"]): row["count"] for row in data["counts"]}
    return data


def limit(scenario):
    return next(iter(scenario.values()))["contestant"]


def median(row, of="ratio"):
    return row[of][1]


def rows_of(data, layer):
    for source, rows in [(data, ROWS), (layer, LAYER_ROWS)]:
        for name, *words in rows:
            if source and (source is data or name in source["scenarios"]):
                yield source["scenarios"][name], *words


def is_ours(name):
    """With what settings ever."""
    return name.startswith(OURS)


def peers_of(scenario):
    return [name for name in PEERS if name != OURS and name in scenario]


def relative(scenario, name):
    """A contestant's time in parts of ours."""
    return median(scenario[name]) / median(scenario[OURS])


def faster(scenario, name):
    return relative(scenario, name) < 1 - LEVEL


def time(ns):
    for size, unit in [(1e6, "ms"), (1e3, "µs"), (1, "ns")]:
        if ns >= size:
            return f"{figures(ns / size)} {unit}"
    return f"{ns:.1f} ns"


def figures(number):
    """Two or three of them."""
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 and number % 1 else f"{number:.0f}"


def about(data):
    about, machine = data["about"], data["about"]["machine"]
    where = f"{machine['cpu']} (family {machine['family']}), {machine['kernel']}, {machine['cores']} cores"
    what = f"{' '.join(about['rustc'].split()[:2])}, tokio {about['versions']['tokio']}, " \
        f"{OURS} {about['versions'][OURS]} at {about['commit']}{' with changes' if about['changed'] else ''}, {about['date']}"
    busy = f", {about['busy']:.1f} of them busy with other work" if about["busy"] > 0.3 else ""
    return where + busy, what


# ===== the plot =====

STYLE = """
  svg { --back: #ffffff; --ink: #1f2328; --soft: #59636e; --grid: #dfe4ea; --peer: #8c959f; --ours: #0969da; --faster: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    svg { --back: #0d1117; --ink: #f0f6fc; --soft: #9da7b3; --grid: #2a313a; --peer: #7d8590; --ours: #58a6ff; --faster: #f0883e }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums }
  .soft { fill: var(--soft) } .small { font-size: 11px } .bold { font-weight: 600 } .title { font-size: 18px; font-weight: 600 }
  .head { font-size: 14px; font-weight: 600 } .end { text-anchor: end } .middle { text-anchor: middle }
  .value { paint-order: stroke; stroke: var(--back); stroke-width: 4px; stroke-linejoin: round }
  .ours { fill: var(--ours) } .better { fill: var(--faster) } .peer { fill: var(--peer) } .value.peer { fill: var(--soft) } .black { fill: var(--ink) }
  line, path { fill: none; stroke-width: 1 } .grid { stroke: var(--grid) } .limit { stroke: var(--ink); stroke-width: 1.5 }
  .guide { stroke: var(--ours); stroke-dasharray: 2 3 } line.ours, path.ours { stroke: var(--ours); fill: none }
  line.peer, path.peer { stroke: var(--peer); fill: none } line.better { stroke: var(--faster) }
  path.limit { fill: none } path.thick { stroke-width: 2 } path.dashed { stroke-dasharray: 5 3 } line.spread { stroke-width: 3; opacity: .45 }
"""
WIDTH, MARGIN, NAMES, COLUMN, GAP, ROW = 940, 18, 166, 134, 17, 17


class Drawing:
    def __init__(self):
        self.parts, self.y = [], 0

    def add(self, tag, content=None, **attributes):
        words = "".join(f' {name.rstrip("_")}="{round(value, 1) if isinstance(value, float) else escape(str(value))}"'
                        for name, value in attributes.items())
        self.parts.append(f"<{tag}{words}/>" if content is None else f"<{tag}{words}>{escape(str(content))}</{tag}>")

    def text(self, x, y, content, kind=""):
        self.add("text", content, x=float(x), y=float(y), class_=kind)

    def line(self, x1, y1, x2, y2, kind):
        self.add("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)

    def mark(self, x, y, kind):
        """A shape of its own for each kind, so that colour is not all that tells them apart."""
        if kind == "better":
            self.add("rect", x=x - 4, y=y - 4, width=8, height=8, class_=kind, transform=f"rotate(45 {x:.1f} {y:.1f})")
        else:
            self.add("circle", cx=x, cy=y, r=5.5 if kind == "ours" else 3.5, class_=kind)

    def svg(self, title, description):
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.y}" width="{WIDTH}" height="{self.y}" ' \
            'role="img" aria-labelledby="title description">'
        back = f'<rect width="{WIDTH}" height="{self.y}" rx="8" style="fill: var(--back)"/>'
        return "\n".join([head, f'<title id="title">{escape(title)}</title>', f'<desc id="description">{escape(description)}</desc>',
                          f"<style>{STYLE}</style>", back, *self.parts, "</svg>", ""])


def column(number):
    return MARGIN + NAMES + number * (COLUMN + GAP)


def section(drawing, head, more):
    """The head of a row of panels."""
    drawing.y += 30
    drawing.line(MARGIN, drawing.y - 18, WIDTH - MARGIN, drawing.y - 18, "grid")
    drawing.add("text", head, x=MARGIN, y=drawing.y + 2, class_="head")
    drawing.y += 19
    drawing.text(MARGIN, drawing.y, more, "soft small")
    drawing.y += 22


def names(drawing, order, versions):
    for row, name in enumerate(order):
        label, crate = PEERS.get(name, (name.removeprefix(f"{OURS}, "), None))
        y = drawing.y + 36 + row * ROW
        drawing.parts.append(
            f'<text x="{MARGIN}" y="{y + 4}"><tspan class="{"bold " * (name == OURS)}{"ours" * is_ours(name)}">{escape(label)}</tspan>'
            f'<tspan class="soft small" dx="5">{escape(str(versions.get(crate) or ""))}</tspan></text>')


def panel(drawing, place, title, below, ticks, across, rows):
    """Titles and grid; gives the y of the first row."""
    left, top = column(place), drawing.y
    bottom = top + 36 + rows * ROW - 4
    drawing.text(left, top + 2, title, "bold")
    drawing.text(left, top + 16, below, "soft small")
    for tick in ticks:
        drawing.line(across(tick), top + 24, across(tick), bottom, "limit" if ticks[tick] == "1×" else "grid")
        drawing.text(across(tick), bottom + 12, ticks[tick], "soft small middle")
    return top + 36


def kind_of(name, value, own):
    return "ours" if is_ours(name) else "better" if value < own * (1 - LEVEL) else "peer"


def value_beside(drawing, x, y, text, kind, left):
    drawing.text(x - 9 if left else x + 9, y + 4, text, f"value small {kind}{' end' * left}{' bold' * (kind == 'ours')}")


def ratios(drawing, data, panels, order):
    """Panels in a row with one scale: a mark for each contestant's time in relation to the limit's, the spread behind it."""
    shown = [row["ratio"] for _, scenario, _ in panels for name, row in data["scenarios"][scenario].items() if name in order]
    low, high = min(first for first, _, _ in shown), max(third for _, _, third in shown) * 1.05
    low = low / 2 if low < 1 else 1 / 1.05
    ticks = {tick: f"{tick}×" for tick in ((1, 2, 4, 8) if high < 9.5 else (1, 3, 10, 30, 100, 300, 1000)) if tick < high}
    for place, scenario, title in panels:
        rows, left = data["scenarios"][scenario], column(place)
        across = lambda value: left + COLUMN * math.log(value / low) / math.log(high / low)
        y = panel(drawing, place, title, f"1× = {time(median(rows[limit(rows)], 'ns'))}", ticks, across, len(order))
        ours = [median(rows[name]) for name in order if name in rows and is_ours(name)]
        own, best = ours[0], min(ours)
        drawing.line(across(own), y - 12, across(own), y + len(order) * ROW - 4, "guide")
        for name in order:
            if name in rows:
                first, value, third = rows[name]["ratio"]
                kind, to_left = kind_of(name, value, best), across(value) > left + COLUMN - 38
                to_left |= kind == "better" and across(first) > left + 44
                drawing.line(across(first), y, across(third), y, f"{kind} spread")
                drawing.mark(across(value), y, kind)
                beside = across(first if to_left else third)
                value_beside(drawing, beside, y, figures(value), kind, to_left)
            y += ROW


def counts(drawing, data, place, title, below, order, whats, form="{:,.0f}"):
    """One panel on a linear scale from 0: the sum of what was counted of each."""
    values = {name: sum(data["counted"][name, what] for what in whats) for name in order}
    left, high = column(place), max(values.values())
    across = lambda value: left + (COLUMN - 38) * value / high
    y = panel(drawing, place, title, below, {0: "0"}, across, len(order))
    for name, value in values.items():
        kind = kind_of(name, value, values[OURS])
        drawing.line(left, y, across(value), y, f"{kind} spread")
        drawing.mark(across(value), y, kind)
        value_beside(drawing, across(value), y, form.format(value), kind, False)
        y += ROW


def growth(drawing, data, rows):
    """The cost of a call beside the number of flights and of waiters, over three columns."""
    series = [
        ("alone among N flights, this crate", "solo among {} keys in flight", OURS, "ours thick"),
        ("alone among N flights, the limit", "solo among {} keys in flight", "limit-shard", "limit"),
        ("join and leave, this crate", "join and leave beside {} waiters", OURS, "ours dashed thick"),
        ("join and leave, Mutex + Shared", "join and leave beside {} waiters", "mutex-map-of-shared", "peer dashed thick"),
    ]
    curves = []
    for label, pattern, name, kind in series:
        points = [(count, median(data["scenarios"][pattern.format(count)][name], "ns"))
                  for count in (1, 2, 1_000, 100_000, 1_000_000) if pattern.format(count) in data["scenarios"]]
        curves.append((points[-1][1], label, points, kind))
    left, top, high = column(2) + 30, drawing.y, max(ns for _, _, points, _ in curves for _, ns in points) * 1.02
    width, bottom = 170, top + 36 + rows * ROW - 4
    across = lambda count: left + width * math.log10(count) / 6
    up = lambda ns: bottom - (bottom - top - 30) * ns / high
    drawing.text(column(2), top + 2, "beside N other flights, or N waiters of one flight", "bold")
    drawing.text(column(2), top + 16, "ns per call", "soft small")
    for count, name in [(1, "N = 1"), (1_000, "1,000"), (1_000_000, "1 million")]:
        drawing.text(across(count), bottom + 14, name, "soft small" + " middle" * (count > 1))
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000) if high / step < 5)
    for ns in range(0, int(high) + 1, step):
        drawing.line(left, up(ns), left + width, up(ns), "grid")
        drawing.text(left - 6, up(ns) + 4, ns, "soft small end")
    # The last numbers stand beside the ends of their curves, and not upon each other.
    lowest = math.inf
    for last, label, points, kind in sorted(curves):
        drawing.add("path", d="M" + " L".join(f"{across(count):.1f} {up(ns):.1f}" for count, ns in points), class_=kind)
        colour = kind.split()[0].replace("limit", "black")
        for count, ns in points:
            drawing.add("circle", cx=across(count), cy=up(ns), r=2.5, class_=colour)
        lowest = min(up(last) + 4, lowest - 14)
        drawing.text(left + width + 10, lowest, f"{last:.0f}  {label}", f"value small {colour}")


def plot(data, layer):
    drawing = Drawing()
    contestants = [name for name in PEERS if name in data["scenarios"]["solo, ready"]]
    overall = lambda name: sum(math.log(relative(data["scenarios"][scenario], name)) for scenario, _, _ in ROWS)
    order = [OURS, *sorted((name for name in contestants if name != OURS), key=overall)]

    title = "What a call costs, in multiples of a limit"
    drawing.text(MARGIN, 34, title, "title")
    for x, y, kind, words in [(0, 58, "ours", "this crate; the dotted line leads down from it"),
                              (330, 58, "better", f"a peer that does better than this crate, by more than {LEVEL * 100:.0f} %"),
                              (0, 78, "peer", "any other peer, the best on the whole first")]:
        drawing.mark(MARGIN + x + 6, y - 4, kind)
        drawing.text(MARGIN + x + 18, y, words, "soft")
    drawing.line(MARGIN + 336, 67, MARGIN + 336, 81, "limit")
    drawing.text(MARGIN + 348, 78, "1×: the limit that each part names. Left is better; scales of times are logarithmic", "soft")
    drawing.text(MARGIN, 98, f"Medians of {data['timings'][0]['rounds']} rounds in which all took turns, each in relation to the limit "
                 "in the same round; the bar behind a mark is the middle half of the rounds.", "soft small")
    drawing.y = 102

    def row_of_panels(head, more, *draw):
        section(drawing, head, more)
        names(drawing, order, data["about"]["versions"])
        for each in draw:
            each()
        drawing.y += 50 + len(order) * ROW

    row_of_panels(
        "Alone: nobody else wants the key", "Limit: a sharded map behind locks, an Arc put in and taken out; it coalesces nothing.",
        lambda: ratios(drawing, data, [(0, "solo, ready", "ready at once"), (1, "solo, one yield", "once Pending")], order),
        lambda: growth(drawing, data, len(order)))
    row_of_panels(
        "64 tasks", "Limit for distinct keys: as above. Keys in common stand in relation to not coalescing: their work, one yield, "
        "costs less than any sharing.",
        lambda: ratios(drawing, data, [
            *((place, f"distinct keys, 64 tasks, workers {count}", f"distinct, {count} worker{'s' * (count > 1)}") for place, count in enumerate((1, 2, 4))),
            (3, "hot key, 64 tasks, workers 4", "one key, 4 workers"), (4, "zipf keys, 64 tasks, workers 4", "Zipf, 4 workers")], order))
    row_of_panels(
        "Fan-out: from the end of the work to the last of N callers, each in a task", "Limit: tokio's bare Notify::notify_waiters, which hands over no value.",
        lambda: ratios(drawing, data, [
            *((place, f"fan-out to {count}", f"{count:,}, 1 worker") for place, count in enumerate((10, 100, 1_000, 10_000))),
            (4, "fan-out to 1000, workers 4", "1,000, 4 workers")], order))
    row_of_panels(
        "Counted, not timed", "Bytes are those on the heap and of the caller's own future, without the work.",
        lambda: counts(drawing, data, 0, "allocations", "of a call alone", order, ["allocations, solo"], "{:.3g}"),
        lambda: counts(drawing, data, 1, "bytes of a flight", "with one caller", order, ["bytes per flight", "bytes of a caller's future"]),
        lambda: counts(drawing, data, 2, "bytes of a follower", "each further caller", order, ["bytes per follower", "bytes of a caller's future"]),
        lambda: counts(drawing, data, 3, "runs of the work", "first of 101 leaves", order, ["executions, leader aborted"]),
        lambda: counts(drawing, data, 4, "polls of a follower", "100 wakes of the work", order, ["polls of a follower for 100 wake-ups"]))
    if layer:
        plot_layer(drawing, layer)

    drawing.line(MARGIN, drawing.y + 8, WIDTH - MARGIN, drawing.y + 8, "grid")
    drawing.y += 12
    for line in [*about(data), "Mutex + Shared is what one writes by hand: Mutex<HashMap<_, Shared<_>>>, with futures-util's Shared.",
                 f"Measured by {data['about']['command']}; all again: benches/plot.py --measure"]:
        drawing.y += 16
        drawing.text(MARGIN, drawing.y, line, "soft small")
    drawing.y += 14
    return drawing.svg(title, " ".join(text.replace("`", "") for text in sentences(data, layer)))


def plot_layer(drawing, data):
    """The scenarios of the layer's bench, five in a row."""
    scenarios = list(data["scenarios"].items())
    for start in range(0, len(scenarios), 5):
        part = scenarios[start:start + 5]
        order = list(dict.fromkeys(name for _, rows in part for name in rows if is_ours(name) or name in PEERS))
        order.sort(key=lambda name: (name != OURS, name in PEERS))
        versions = ", ".join(f"{name} {version}" for name, version in data["about"]["versions"].items() if name not in (OURS, "tokio"))
        section(drawing, "The layer: a request from call to the end of the body", f"Limit: the bare service. {versions}; the peer's key is the method and the URI.")
        names(drawing, order, data["about"]["versions"])
        ratios(drawing, data, [(place, name, LAYER_TITLES.get(name, name)) for place, (name, _) in enumerate(part)], order)
        drawing.y += 50 + len(order) * ROW


# ===== the README =====

def table(data, layer):
    yield "| time of a call, or of a fan-out | limit | this crate | fastest peer |"
    yield "| --- | --: | --: | --- |"
    for rows, words, _ in rows_of(data, layer):
        best = min(peers_of(rows), key=lambda peer: median(rows[peer]))
        cell = lambda who: f"{time(median(rows[who], 'ns'))} ({figures(median(rows[who]))}×)"
        bold = lambda text, yes: f"**{text}**" if yes else text
        yield f"| {words} | {time(median(rows[limit(rows)], 'ns'))} | {bold(cell(OURS), relative(rows, best) > 1)} " \
            f"| {bold(cell(best), relative(rows, best) <= 1)} {PEERS[best][0]} |"


def sentences(data, layer):
    """What the numbers say, made of them, so that it cannot be false."""
    count = lambda what, name=OURS: data["counted"][name, what]
    wins = {}
    for rows, _, words in rows_of(data, layer):
        for peer in peers_of(rows):
            if faster(rows, peer):
                wins.setdefault(PEERS[peer][0], []).append(f"{words} {relative(rows, peer):.2f}")
    yield f"Faster than this crate by more than {LEVEL * 100:.0f} %, in parts of its time: " + \
        "; ".join(f"{peer} ({', '.join(cases)})" for peer, cases in wins.items()) + "." if wins else \
        f"In no row is a peer faster than this crate by more than {LEVEL * 100:.0f} %."
    again = {}
    for name, (words, _) in PEERS.items():
        if (name, "executions, leader aborted") not in data["counted"]:
            continue
        again.setdefault(int(count("executions, leader aborted", name)), []).append(words.replace(OURS, "this crate"))
    yield "When the first of 101 callers leaves, the work runs " + "; ".join(
        f"{ {1: 'once', 2: 'twice'}.get(runs, f'{runs} times') } in {', '.join(who)}" for runs, who in sorted(again.items())) + "."
    future = count("bytes of a caller's future")
    yield f"A flight holds {count('bytes per flight'):.0f} bytes and its boxed work, a follower {count('bytes per follower'):.0f}, " \
        f"each beside a future of {future:.0f}; a call alone makes {count('allocations, solo'):.3g} allocations, a follower " \
        f"{'none' if count('allocations per follower') < 0.01 else figures(count('allocations per follower'))}."


def sentences_of_proxy(proxy):
    """How many times as many requests per second as without the layer."""
    ratios = {each["name"]: each["ratios"].get("per_second") for each in proxy["scenarios"]} if proxy else {}
    if any(ratios.values()):
        yield "Requests per second through the example proxy, with the layer by without: " + \
            "; ".join(f"{figures(ratio['median'])} ({name})" for name, ratio in ratios.items() if ratio) + "."


def section_of_readme(data, layer, proxy):
    """A line for each thing said: the README is as long whatever the numbers are."""
    faster, *counted = sentences(data, layer)
    limits = "Limits: a locked map in and out, for a call alone or with its own key; no coalescing, for keys in common; " \
        f"tokio's `notify_waiters`, for a fan-out{'; the bare service, for the layer' * bool(layer)}. " \
        "Mutex + Shared is what one writes by hand, with futures-util."
    where = "; ".join(about(data)) + ". All of it again: `benches/plot.py --measure`."
    image = "![The time of this crate and of all its peers, in relation to a limit, scenario by scenario](benches/results.svg)"
    return "\n".join([*table(data, layer), "", faster, limits, " ".join([*counted, *sentences_of_proxy(proxy)]), where, "", image])


def spliced(readme, made):
    begin, end = "<!-- made by benches/plot.py -->\n", "\n<!-- end -->"
    before, rest = readme.split(begin)
    return before + begin + made + end + rest.split(end, 1)[1]


def measure():
    RESULTS.mkdir(exist_ok=True)
    for bench in ("group", "layer"):
        if (BENCHES / f"{bench}.rs").exists():
            command = ["cargo", "bench", "--bench", bench]
            subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {
                f"{bench.upper()}_TABLE": "only", "BENCH_JSON": str((RESULTS / f"{bench}.json").relative_to(ROOT))})
    if shutil.which("wrk"):
        subprocess.run([BENCHES / "proxy.py", "--json", RESULTS / "proxy.json"], cwd=ROOT, check=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--measure", action="store_true")
    options.add_argument("--check", action="store_true")
    options = options.parse_args()
    if options.measure:
        measure()
    data, layer = load("group"), load("layer")
    proxy = RESULTS / "proxy.json"
    proxy = json.loads(proxy.read_text()) if proxy.exists() else None
    made = {SVG: plot(data, layer), README: spliced(README.read_text(), section_of_readme(data, layer, proxy))}
    for file, text in made.items():
        if not options.check:
            file.write_text(text)
        elif file.read_text() != text:
            raise SystemExit(f"{file.relative_to(ROOT)} is not what benches/results has: run benches/plot.py")
    print(section_of_readme(data, layer, proxy))


main()
