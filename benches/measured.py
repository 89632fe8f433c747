"""What `benches/results.rs` wrote into benches/results, and what it says. For plot.py and figure.py."""
import json, pathlib

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
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
# The table's rows: scenario, what the table calls it, what the sentence calls it. One that was not measured is left out.
ROWS = [
    ("solo, ready", "alone, the work ready at once", "alone"),
    ("solo, one yield", "alone, the work once `Pending`", "once `Pending`"),
    ("distinct keys, 64 tasks, workers 4", "64 tasks on 4 workers, distinct keys", "distinct keys"),
    ("hot key, work of 1 ms, 64 tasks, workers 4", "64 tasks on 4 workers, one hot key, work that waits 1 ms: processor time", "hot key"),
    ("zipf keys, work of 1 ms, 64 tasks, workers 4", "the same, keys by Zipf's law: processor time", "Zipf"),
    ("fan-out from the gate to 10", "fan-out to 10 callers, 1 worker", "fan-out to 10"),
    ("fan-out from the gate to 1000, workers 4", "fan-out to 1,000 callers, 4 workers", "to 1,000"),
]
LAYER_ROWS = [
    ("solo", "the layer, alone", "the layer alone"),
    ("hot, 64 callers of one key", "the layer, 64 callers of one key, each", "the layer with 64 callers"),
]


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
            if source and name in source["scenarios"]:
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


def sentences(data, layer):
    """What the numbers say, made of them, so that it cannot be false."""
    count = lambda what, name=OURS: data["counted"][name, what]
    wins = {}
    for rows, _, words in rows_of(data, layer):
        for peer in peers_of(rows):
            if faster(rows, peer):
                wins.setdefault(PEERS[peer][0], []).append(f"{words} {relative(rows, peer):.2f}")
    yield f"Peers that are faster by more than {LEVEL * 100:.0f} %, their time as a part of this crate's: " + \
        "; ".join(f"{peer} ({', '.join(cases)})" for peer, cases in wins.items()) + "." if wins else \
        f"No peer is faster by more than {LEVEL * 100:.0f} % in any row."
    again = {}
    for name, (words, _) in PEERS.items():
        if (name, "executions, leader aborted") not in data["counted"]:
            continue
        again.setdefault(int(count("executions, leader aborted", name)), []).append(words.replace(OURS, "this crate"))
    yield "When the first of 101 callers leaves, the work runs " + "; ".join(
        f"{ {1: 'once', 2: 'twice'}.get(runs, f'{runs} times') } in {', '.join(who)}" for runs, who in sorted(again.items())) + "."
    future = count("bytes of a caller's future")
    of_followers = count("allocations per follower")
    alone = count("allocations, solo")
    yield f"A flight of one caller holds {count('bytes per flight'):.0f} bytes and its boxed work, a follower " \
        f"{count('bytes per follower'):.0f}, each beside a future of {future:.0f}; a call alone makes {alone:.3g} " \
        f"allocation{'s' * (alone != 1)}, a follower {'none' if of_followers < 0.01 else figures(of_followers)}."
    for what, words in [("hot key", "one hot key"), ("Zipf", "keys by Zipf's law")]:
        if (OURS, f"calls per flight, {what}") in data["counted"]:
            each = [f"{count(f'calls per flight, {what}', name):.1f} in {label.replace(OURS, 'this crate')}"
                    for name, (label, _) in PEERS.items() if (name, f"calls per flight, {what}") in data["counted"]]
            yield f"64 tasks on 4 workers, {words}, work that waits 1 ms: of each flight so many calls, {'; '.join(each)}."
