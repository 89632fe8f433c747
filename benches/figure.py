"""Draws what benches/results has as one SVG: a dot for each contestant in each scenario. For plot.py."""
import math
from xml.sax.saxutils import escape

from measured import LEVEL, OURS, PEERS, ROWS, about, figures, is_ours, limit, median, relative, sentences, time

# What a panel of the layer's is called; any other by its scenario's name.
LAYER_TITLES = {
    "solo": "alone",
    "bypassed": "not coalesced",
    "hot, 64 callers of one key": "64 of one key, each",
    "axum's Router, solo": "alone, over axum",
}
STYLE = """
  svg { --back: #ffffff; --ink: #1f2328; --soft: #59636e; --grid: #dfe4ea; --peer: #8c959f; --ours: #0969da; --faster: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    svg { --back: #0d1117; --ink: #f0f6fc; --soft: #9da7b3; --grid: #2a313a; --peer: #7d8590; --ours: #58a6ff; --faster: #f0883e }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; fill: var(--ink) }
  text { font-variant-numeric: tabular-nums }
  .soft { fill: var(--soft) } .small { font-size: 11px } .bold { font-weight: 600 } .title { font-size: 18px; font-weight: 600 }
  .head { font-size: 14px; font-weight: 600 } .end { text-anchor: end } .middle { text-anchor: middle }
  .value { paint-order: stroke; stroke: var(--back); stroke-width: 4px; stroke-linejoin: round }
  .ours { fill: var(--ours) } .better { fill: var(--faster) } .peer { fill: var(--peer) } .value.peer { fill: var(--soft) }
  .black { fill: var(--ink) }
  line, path { fill: none; stroke-width: 1 } .grid { stroke: var(--grid) } .limit { stroke: var(--ink); stroke-width: 1.5 }
  .guide { stroke: var(--ours); stroke-dasharray: 2 3 } line.ours, path.ours { stroke: var(--ours); fill: none }
  line.peer, path.peer { stroke: var(--peer); fill: none } line.better { stroke: var(--faster) }
  path.limit { fill: none } path.thick { stroke-width: 2 } path.dashed { stroke-dasharray: 5 3 }
  line.spread { stroke-width: 3; opacity: .45 }
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
        words = f'<title id="title">{escape(title)}</title>\n<desc id="description">{escape(description)}</desc>'
        return "\n".join([head, words, f"<style>{STYLE}</style>", back, *self.parts, "</svg>", ""])


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
    panels = [panel for panel in panels if panel[1] in data["scenarios"]]
    if not panels:
        return
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
    overall = lambda name: sum(math.log(relative(data["scenarios"][scenario], name)) for scenario, _, _ in ROWS if scenario in data["scenarios"])
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
    rounds = data["timings"][0]["rounds"]
    drawing.text(MARGIN, 98, f"Medians of {rounds} rounds in which all took turns, each in relation to the limit in the same round; "
                 "the bar behind a mark is the middle half of the rounds.", "soft small")
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
        "64 tasks", "Limit for distinct keys: as above. Keys in common have work that waits 1 ms; what counts is processor time, "
        "in relation to a bare Notify, and by Zipf's law to not coalescing.",
        lambda: ratios(drawing, data, [
            (0, "distinct keys, 64 tasks, workers 1", "distinct, 1 worker"),
            (1, "distinct keys, 64 tasks, workers 2", "distinct, 2 workers"),
            (2, "distinct keys, 64 tasks, workers 4", "distinct, 4 workers"),
            (3, "hot key, work of 1 ms, 64 tasks, workers 4", "one key, 4 workers"),
            (4, "zipf keys, work of 1 ms, 64 tasks, workers 4", "Zipf, 4 workers")], order))
    row_of_panels(
        "Fan-out: from the opened gate that the work waits at to the last of N callers, each in a task",
        "Limit: tokio's bare Notify::notify_waiters, which hands over no value.",
        lambda: ratios(drawing, data, [
            *((place, f"fan-out from the gate to {count}", f"{count:,}, 1 worker") for place, count in enumerate((10, 100, 1_000, 10_000))),
            (4, "fan-out from the gate to 1000, workers 4", "1,000, 4 workers")], order))
    own = "bytes of a caller's future"
    row_of_panels(
        "Counted, not timed", "Bytes are those on the heap and of the caller's own future, without the work.",
        lambda: counts(drawing, data, 0, "allocations", "of a call alone", order, ["allocations, solo"], "{:.3g}"),
        lambda: counts(drawing, data, 1, "bytes of a flight", "with one caller", order, ["bytes per flight", own]),
        lambda: counts(drawing, data, 2, "bytes of a follower", "each further caller", order, ["bytes per follower", own]),
        lambda: counts(drawing, data, 3, "runs of the work", "first of 101 leaves", order, ["executions, leader aborted"]),
        lambda: counts(drawing, data, 4, "polls of a follower", "100 wakes of the work", order,
                       ["polls of a follower for 100 wake-ups"]))
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
    scenarios = [(name, rows) for name, rows in data["scenarios"].items() if not name.startswith("variants")]
    for start in range(0, len(scenarios), 5):
        part = scenarios[start:start + 5]
        order = list(dict.fromkeys(name for _, rows in part for name in rows if is_ours(name) or name in PEERS))
        order.sort(key=lambda name: (name != OURS, name in PEERS))
        versions = data["about"]["versions"].items()
        versions = ", ".join(f"{name} {version}" for name, version in versions if name not in (OURS, "tokio"))
        section(drawing, "The layer: a request from call to the end of the body",
                f"Limit: the bare service. {versions}; the peer's key is the method and the URI.")
        names(drawing, order, data["about"]["versions"])
        ratios(drawing, data, [(place, name, LAYER_TITLES.get(name, name)) for place, (name, _) in enumerate(part)], order)
        drawing.y += 50 + len(order) * ROW
