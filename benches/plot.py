#!/usr/bin/env python3
"""Draws benches/results.svg from the JSON in benches/results, and writes the tables in README.md and benches/README.md.

    benches/plot.py              # all of it, from the results that are there
    benches/plot.py --measure    # first measures again: group, layer, and the proxy if wrk is installed (a quarter of an hour)
    benches/plot.py --check      # writes nothing; fails if plot or tables say something else than the results

Nothing but Python's standard library. Leave the machine alone while it measures: if others used its cores, before or
after a bench, plot and tables say so.
"""
import argparse, json, os, pathlib, shutil, subprocess, sys

# No caches of the two modules beside this one.
sys.dont_write_bytecode = True
from figure import plot
from measured import OURS, PEERS, RESULTS, about, figures, limit, load, median, peers_of, relative, rows_of, sentences, time

BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
README, COMPARISON, SVG = ROOT / "README.md", BENCHES / "README.md", BENCHES / "results.svg"
BARE = "bare service"
# The rows of the README: what it calls them, their scenario of the layer, who is shown.
COSTS = [
    ("a request that shares with nobody", "solo", OURS),
    ("each of 64 requests that share one call", "hot, 64 callers of one key", OURS),
    ("a request that is never shared (`OPTIONS`)", "bypassed", f"{OURS}, OPTIONS"),
]


def table(data, layer):
    yield "| time of a call, or of a fan-out | limit | this crate | fastest peer |"
    yield "| --- | --: | --: | --- |"
    for rows, words, _ in rows_of(data, layer):
        best = min(peers_of(rows), key=lambda peer: median(rows[peer]))
        cell = lambda who: f"{time(median(rows[who], 'ns'))} ({figures(median(rows[who]))}×)"
        bold = lambda text, yes: f"**{text}**" if yes else text
        yield f"| {words} | {time(median(rows[limit(rows)], 'ns'))} | {bold(cell(OURS), relative(rows, best) > 1)} " \
            f"| {bold(cell(best), relative(rows, best) <= 1)} {PEERS[best][0]} |"


def sentences_of_proxy(proxy):
    """How many times as many requests per second as without the layer."""
    ratios = {each["name"]: each["ratios"].get("per_second") for each in proxy["scenarios"]} if proxy else {}
    if any(ratios.values()):
        yield "Requests per second through the example proxy, with the layer by without: " + \
            "; ".join(f"{figures(ratio['median'])} ({name})" for name, ratio in ratios.items() if ratio) + "."


def costs(data, layer):
    """For the README: few lines, as many whatever the numbers are."""
    yield "| time, from the call to the end of the body | without the layer | with it |"
    yield "| --- | --: | --: |"
    for words, scenario, who in COSTS:
        rows = layer["scenarios"][scenario]
        yield f"| {words} | {time(median(rows[BARE], 'ns'))} | {time(median(rows[who], 'ns'))} |"
    yield f"| `Group::run`, alone | | {time(median(data['scenarios']['solo, ready'][OURS], 'ns'))} |"
    yield ""
    yield f"A request has 12 header fields, and the service answers at once; its own time comes on top. {about(layer)[0]}."


def variants(layer):
    rows = {name: rows for name, rows in layer["scenarios"].items() if name.startswith("variants")}
    if rows:
        yield "| requests of one key that differ in a field that `Vary` names | keys of their own | variants of one key |"
        yield "| --- | --: | --: |"
        for name, row in rows.items():
            keys, ours = (median(row[who], "ns") for who in (limit(row), OURS))
            yield f"| {name.removeprefix('variants, ')} | {time(keys)} | {time(ours)} |"
        yield ""


def comparison(data, layer, proxy):
    """For benches/README.md."""
    faster, *counted = sentences(data, layer)
    limits = "Limits: a locked map in and out, for a call alone or with its own key; tokio's `notify_waiters`, for a fan-out and " \
        "a hot key; no coalescing, for keys by Zipf's law; the bare service, for the layer. " \
        "Mutex + Shared is what one writes by hand, with futures-util. " \
        "tower-resilience-coalesce looks at no header field, and copies only bodies that are `Clone`."
    where = "; ".join(about(data)) + ". All of it again: `benches/plot.py --measure`."
    image = "![The time of this crate and of all its peers, in relation to a limit, scenario by scenario](results.svg)"
    proxied = [*sentences_of_proxy(proxy)]
    return "\n".join([*table(data, layer), "", faster, "", limits, "", *variants(layer),
                      *(line for sentence in [*counted, *proxied, where] for line in (sentence, "")), image])


def spliced(file, made):
    begin, end = "<!-- made by benches/plot.py -->\n", "\n<!-- end -->"
    before, rest = file.read_text().split(begin)
    return before + begin + made + end + rest.split(end[1:], 1)[1]


def measure():
    RESULTS.mkdir(exist_ok=True)
    for bench in ("group", "layer"):
        file = RESULTS / f"{bench}.json"
        file.unlink(missing_ok=True)
        variables = {f"{bench.upper()}_TABLE": "only", "BENCH_JSON": str(file.relative_to(ROOT))}
        subprocess.run(["cargo", "bench", "-p", "benches", "--bench", bench], cwd=ROOT, check=True, env=os.environ | variables)
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
    # The plot names one commit.
    if layer["about"]["commit"] != data["about"]["commit"]:
        raise SystemExit("group.json and layer.json are of two commits: measure both again")
    proxy = RESULTS / "proxy.json"
    proxy = json.loads(proxy.read_text()) if proxy.exists() else None
    made = {SVG: plot(data, layer), README: spliced(README, "\n".join(costs(data, layer))),
            COMPARISON: spliced(COMPARISON, comparison(data, layer, proxy))}
    for file, text in made.items():
        if not options.check:
            file.write_text(text)
        elif file.read_text() != text:
            raise SystemExit(f"{file.relative_to(ROOT)} is not what benches/results has: run benches/plot.py")
    print(comparison(data, layer, proxy))


main()
