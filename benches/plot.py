#!/usr/bin/env python3
"""Draws benches/results.svg from the JSON in benches/results, and writes the README's section "What it costs".

    benches/plot.py              # both, from the results that are there
    benches/plot.py --measure    # first measures again: group, layer, and the proxy if wrk is installed (ten minutes)
    benches/plot.py --check      # writes nothing; fails if the plot or the README says something else than the results

Nothing but Python's standard library. Leave the machine alone while it measures: if others used its cores, before or
after a bench, plot and README say so.
"""
import argparse, json, os, pathlib, shutil, subprocess, sys

# No caches of the two modules beside this one.
sys.dont_write_bytecode = True
from figure import plot
from measured import OURS, PEERS, RESULTS, about, figures, limit, load, median, peers_of, relative, rows_of, sentences, time

BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
README, SVG = ROOT / "README.md", BENCHES / "results.svg"


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


def section_of_readme(data, layer, proxy):
    """A line for each thing said: the README is as long whatever the numbers are."""
    faster, *counted = sentences(data, layer)
    limits = "Limits: a locked map in and out, for a call alone or with its own key; no coalescing, for keys in common; " \
        f"tokio's `notify_waiters`, for a fan-out{'; the bare service, for the layer' * bool(layer)}. " \
        "Mutex + Shared is what one writes by hand, with futures-util." + \
        " tower-resilience-coalesce looks at no header field, and copies only bodies that are `Clone`." * bool(layer)
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
    if layer and layer["about"]["commit"] != data["about"]["commit"]:
        raise SystemExit("group.json and layer.json are of two commits: measure both again")
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
