#!/usr/bin/env python3
"""The reverse proxy with the layer and without it, in turns under wrk on loopback.

    benches/proxy.py [--seconds 2] [--rounds 15] [--json FILE]

Needs wrk (Debian: apt-get install wrk); the rest is Python's standard library. Both proxies run all the time and take turns
a few seconds, so that a machine that is busy for a while is busy for both. The proxy has a core to itself, where there are
two; origin and load have the others. What is printed are medians, with the quartiles beside them: of ratios, the median of
the ratios of neighbours. `proxy_busy` is the share of its core that the proxy used: where that is not near 1, something
else was the limit. Below each scenario are its targets, met or missed; a missed one is no failure of the program. Large bodies come first: see transfers.py.
"""
import argparse, datetime, json, os, pathlib, platform, re, select, shutil, socket, statistics, subprocess, sys, tempfile, time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
# A path of its own for each request of each of wrk's threads.
UNIQUE = 'n = 0\nlocal me = tostring({}):sub(10)\nrequest = function() n = n + 1; return wrk.format("GET", "/" .. me .. n) end\n'
KINDS = ("without", "with")
CORES = sorted(os.sched_getaffinity(0))
# The allocator's share in two runs of the same program.
MEMORY_NOISE = 1.0
started = []


# What is measured has a core to itself, if that leaves any.
PROXY, OTHERS = (CORES[:1], CORES[1:]) if len(CORES) > 1 else (CORES, CORES)


def start(pinned, *command):
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, pinned))
    started.append(process)
    return process, process.stdout.readline().split()[-1]


def stop():
    for process in started:
        process.terminate()
        process.wait()
    started.clear()


def wrk(url, used, connections, seconds, *more):
    command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}", "--latency", *more, url]
    before, began = used(), time.monotonic()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    took, spent = time.monotonic() - began, used() - before
    failed = re.search(r"Non-2xx.*|Socket errors.*", output)
    if failed:
        raise SystemExit(f"{url}: {failed[0]}")
    value = lambda pattern: re.search(pattern, output)[1]
    unit = {"us": .001, "ms": 1, "s": 1000}
    milliseconds = lambda text: float(re.match(r"[\d.]+", text)[0]) * unit[text.lstrip("0123456789.")]
    requests = int(value(r"(\d+) requests in"))
    return {"requests": requests, "per_second": float(value(r"Requests/sec:\s+(\S+)")),
            "p50_ms": milliseconds(value(r"\n\s+50%\s+(\S+)")), "p99_ms": milliseconds(value(r"\n\s+99%\s+(\S+)")),
            "cpu_us_per_request": spent / 1e3 / requests, "proxy_busy": spent / 1e9 / took, "seconds": took}


def burst(url, used, clients):
    """When the responses of `clients` requests, sent at once over open connections, had come in whole: milliseconds.

    One process has all the clients: several would sleep between two responses, and waking them be most of what is measured.
    """
    host, port = url.removeprefix("http://").split(":")
    request = f"GET /burst{time.monotonic_ns()} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    poll, left, done = select.epoll(), {}, []
    for _ in range(clients):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    received, gone = dict.fromkeys(left, b""), []
    before, began = used(), time.monotonic()
    for connection in left.values():
        connection.send(request)
    while left:
        events = poll.poll(10)
        if not events:
            raise SystemExit(f"{len(left)} requests of a burst have no answer after 10 s")
        for number, _ in events:
            received[number] += left[number].recv(65536)
            if len(received[number].partition(b"\r\n\r\n")[2]) == 1024:
                done.append((time.monotonic() - began) * 1e3)
                gone.append(left.pop(number))
    spent = used() - before
    for connection in gone:
        connection.close()
    return {"requests": clients, "half_ms": done[clients // 2], "last_ms": done[-1], "cpu_us_per_request": spent / 1e3 / clients}


def calls(origin):
    with urllib.request.urlopen(origin + "/calls", timeout=20) as response:
        return json.load(response)


def cpu(process):
    """Nanoseconds of processor time so far, the kernel's part included."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def peak_memory(process):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


def spread(values):
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "quartiles": [low, high], "least": min(values), "most": max(values)}


def compare(name, latency, rounds, measure, targets, beside=False):
    """Takes turns; gives all that was measured. `beside`: the origin runs on the proxy's core."""
    _, origin = start(PROXY if beside else OTHERS, RELEASE / "examples/origin", "--listen", "127.0.0.1:0", "--latency-ms", latency)
    proxy = lambda *more: start(PROXY, RELEASE / "reverse_proxy", "--listen", "127.0.0.1:0", "--upstream", origin, *more)
    proxies = dict(zip(KINDS, (proxy("--no-coalesce"), proxy())))

    def turn(kind):
        running, url = proxies[kind]
        calls(origin)
        result = measure(url, lambda: cpu(running))
        seen = calls(origin)
        took = result.pop("seconds", None)
        return result | {"calls": seen["calls"], "calls_at_once": seen["peak"]} | (
            {"calls_per_second": seen["calls"] / took} if took else {})

    for kind in KINDS:
        turn(kind)  # to warm up
    results = {kind: [] for kind in KINDS}
    for number in range(rounds):
        # Who goes first changes, too.
        for kind in sorted(KINDS, reverse=number % 2):
            results[kind].append(turn(kind))
    summary = {kind: {key: spread([result[key] for result in results[kind]]) for key in results[kind][0]} for kind in KINDS}
    pairs = list(zip(results["with"], results["without"]))
    ratios = {key: spread([a[key] / b[key] for a, b in pairs]) for key in ("per_second", "cpu_us_per_request") if key in pairs[0][0]}
    for kind in KINDS:
        summary[kind]["peak_memory_mib"] = peak_memory(proxies[kind][0])
    stop()

    median = lambda kind, key: summary[kind][key]["median"]
    judged = [{"what": what, "want": want, "got": got, "met": got >= want if sign == ">=" else got <= want, "sign": sign}
              for what, sign, want, got in targets(median, ratios)]
    memory = {kind: summary[kind]["peak_memory_mib"] for kind in KINDS}
    judged.append({"what": "peak memory in MiB (the pass-through's, and 1 for the allocator's noise)", "sign": "<=",
                   "want": memory["without"] + MEMORY_NOISE, "got": memory["with"],
                   "met": memory["with"] <= memory["without"] + MEMORY_NOISE})
    show(name, summary, ratios, judged)
    return {"name": name, "origin_ms": latency, "origin_beside_proxy": beside, "rounds": rounds, "summary": summary, "ratios": ratios, "targets": judged}


def show(name, summary, ratios, judged):
    number = lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:.3f}"
    cell = lambda at: f"{number(at['median'])} ({number(at['quartiles'][0])} to {number(at['quartiles'][1])})"
    print(f"\n{name}\n  {'':22}{'without':>32}{'with':>32}{'with / without':>28}")
    for key, value in summary["with"].items():
        columns = [summary[kind][key] for kind in KINDS]
        columns = [cell(at) if isinstance(at, dict) else number(at) for at in columns]
        print(f"  {key:22}{columns[0]:>32}{columns[1]:>32}{cell(ratios[key]) if key in ratios else '':>28}")
    for target in judged:
        print(f"  {'met   ' if target['met'] else 'MISSED'}  {target['what']}: {number(target['got'])}, "
              f"wanted {target['sign']} {number(target['want'])}")


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def circumstances():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["benches/proxy.py", *sys.argv[1:]]),
        "machine": {"cpu": model[1] if model else platform.machine(), "cores": len(CORES), "kernel": platform.release(),
                    "memory_gib": round(int(memory[1]) / 2**20, 1)},
        "cores": {"proxy": PROXY, "others": OTHERS},
        "load_before": os.getloadavg()[0],
        "versions": {"commit": output("git", "describe", "--always", "--dirty", "--abbrev=12"), "rustc": output("rustc", "--version"),
                     "wrk": subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.split(" [")[0],
                     "profile": "release"},
    }


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=int, default=2, help="of each of wrk's turns")
    options.add_argument("--rounds", type=int, default=15, help="each a turn of the one and a turn of the other")
    options.add_argument("--json", type=pathlib.Path, help="where all that was measured is written")
    options.add_argument("--only", choices=("unique", "hot", "beside", "crowd", "burst", "transfers"), help="one scenario")
    options = options.parse_args()
    if options.only in (None, "transfers"):
        subprocess.run([ROOT / "benches/transfers.py"], check=True)
    if options.only == "transfers":
        return
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing (Debian: apt-get install wrk)")
    for program in (("-p", "reverse_proxy"), ("--example", "origin")):
        subprocess.run(["cargo", "build", "--release", "--quiet", *program], cwd=ROOT, check=True)
    os.sched_setaffinity(0, OTHERS)
    script = pathlib.Path(tempfile.mkdtemp()) / "unique.lua"
    script.write_text(UNIQUE)
    about = circumstances()
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    if about["load_before"] > 1.5:
        print("The machine is busy with something else: ratios and processor time may be believed, rates and times not.")

    hot = lambda connections: lambda url, used: wrk(url + "/hot", used, connections, options.seconds)
    one_call = lambda median, ratios: [
        ("origin calls a second", "<=", 200, median("with", "calls_per_second")),
        ("origin calls at one time", "<=", 1, median("with", "calls_at_once")),
        ("requests a second, of the pass-through's", ">=", 1.3, ratios["per_second"]["median"])]
    scenarios = {
        "unique": dict(name="unique keys, 64 connections, origin 0 ms", latency=0,
                       measure=lambda url, used: wrk(url, used, 64, options.seconds, "-s", script), targets=lambda median, ratios: [
                           ("requests a second, of the pass-through's", ">=", .97, ratios["per_second"]["median"])]),
        # 256 connections that wait 5 ms ask at most 51,200 times a second, whoever answers.
        "hot": dict(name="one hot key, 256 connections, origin 5 ms", latency=5, measure=hot(256), targets=one_call),
        "beside": dict(name="one hot key, 256 connections, origin 5 ms on the proxy's core", latency=5, measure=hot(256), targets=one_call, beside=True),
        "crowd": dict(name="one hot key, 1,024 connections, origin 5 ms", latency=5, measure=hot(1024), targets=one_call),
        "burst": dict(name="burst of 1,000 on one key, origin 50 ms", latency=50, measure=lambda url, used: burst(url, used, 1000),
                      targets=lambda median, ratios: [
                          ("origin calls", "<=", 1, median("with", "calls")),
                          ("half of the clients have their response, ms", "<=", 60, median("with", "half_ms")),
                          ("the last client has its response, ms", "<=", 100, median("with", "last_ms"))]),
    }
    chosen = [options.only] if options.only else list(scenarios)
    results = [{"key": key} | compare(rounds=options.rounds, **scenarios[key]) for key in chosen]
    if options.json:
        lines = lambda rows: ",\n".join(f"    {json.dumps(row)}" for row in rows)
        options.json.write_text(f'{{\n  "about": {json.dumps(about)},\n  "scenarios": [\n{lines(results)}\n  ]\n}}\n')


try:
    main()
finally:
    for process in started:
        process.kill()
