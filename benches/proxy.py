#!/usr/bin/env python3
"""The example reverse_proxy with the layer and without it, side by side under wrk on loopback.

    benches/proxy.py [--seconds 5] [--rounds 5] [--json FILE]

Needs wrk (Debian: apt-get install wrk); the rest is Python's standard library. The two proxies take turns, and the medians
of the rounds are what is printed. Machine, origin, proxy and load share the cores.
"""
import argparse, json, multiprocessing, os, pathlib, re, select, socket, statistics, subprocess, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples"
UNIQUE = 'n = 0\nlocal me = tostring({}):sub(10)\nrequest = function() n = n + 1; return wrk.format("GET", "/" .. me .. n) end\n'
started = []


def start(*command):
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    started.append(process)
    return process, process.stdout.readline().split()[-1]


def wrk(url, connections, seconds, *more):
    output = subprocess.run(["wrk", "-t2", f"-c{connections}", f"-d{seconds}", "--latency", *more, url], check=True,
                            capture_output=True, text=True).stdout
    failed = re.search(r"Non-2xx.*|Socket errors.*", output)
    if failed:
        raise SystemExit(f"{url}: {failed[0]}")
    value = lambda pattern: re.search(pattern, output)[1]
    return {"per_second": float(value(r"Requests/sec:\s+(\S+)")), "p50": value(r"\n\s+50%\s+(\S+)"), "p99": value(r"\n\s+99%\s+(\S+)")}


def calls(origin):
    with urllib.request.urlopen(origin + "/calls") as response:
        return json.load(response)


def cpu(process):
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(process):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


def burst(url, clients, processes=4):
    """When the responses of `clients` requests, sent at once over open connections, had come in whole: milliseconds."""
    host, port = url.removeprefix("http://").split(":")
    request = f"GET /burst{time.monotonic_ns()} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    ready, results = multiprocessing.Barrier(processes + 1), multiprocessing.SimpleQueue()
    part = [multiprocessing.Process(target=clients_of_a_burst, args=((host, int(port)), request, clients // processes, ready, results))
            for _ in range(processes)]
    for process in part:
        process.start()
    ready.wait()
    times = [results.get() for _ in part]
    for process in part:
        process.join()
    began = min(sent for sent, _ in times)
    done = sorted((time - began) * 1e3 for _, ends in times for time in ends)
    return {"half": done[len(done) // 2], "last": done[clients - 1]}


def clients_of_a_burst(address, request, clients, ready, results):
    poll, left, done = select.epoll(), {}, []
    for _ in range(clients):
        connection = socket.create_connection(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    received, gone = dict.fromkeys(left, b""), []
    ready.wait()
    began = time.monotonic()
    for connection in left.values():
        connection.send(request)
    while left:
        for number, _ in poll.poll(10):
            received[number] += left[number].recv(65536)
            if len(received[number].partition(b"\r\n\r\n")[2]) == 1024:
                done.append(time.monotonic())
                gone.append(left.pop(number))
    results.put((began, done))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json", type=pathlib.Path)
    options = options.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "reverse_proxy", "--example", "origin"],
                   cwd=ROOT, check=True)
    script = pathlib.Path(tempfile.mkdtemp()) / "unique.lua"
    script.write_text(UNIQUE)
    results = {}

    def compare(name, latency, measure):
        process, origin = start(EXAMPLES / "origin", "--listen", "127.0.0.1:0", "--latency-ms", latency)
        proxy = lambda *more: start(EXAMPLES / "reverse_proxy", "--listen", "127.0.0.1:0", "--upstream", origin, *more)
        proxies = {"without": proxy("--no-coalesce"), "with": proxy()}
        rounds = {kind: [] for kind in proxies}
        for number in range(options.rounds):
            # Who goes first changes, too.
            for kind in sorted(proxies, reverse=number % 2):
                running, url = proxies[kind]
                calls(origin)
                before, began = cpu(running), time.monotonic()
                result = measure(url)
                took = time.monotonic() - began
                result |= {"cpu_us": (cpu(running) - before) / result["per_second"] / took * 1e6} if "per_second" in result else {}
                seen = calls(origin)
                rounds[kind].append(result | {"calls": seen["calls"], "calls_per_second": seen["calls"] / took, "at_once": seen["peak"]})
        summary = {}
        for kind, (running, _) in proxies.items():
            median = lambda key: statistics.median(result[key] for result in rounds[kind])
            summary[kind] = {key: median(key) if isinstance(value, (int, float)) else rounds[kind][-1][key]
                             for key, value in rounds[kind][0].items()} | {"peak_memory_mib": peak_memory(running)}
        if "per_second" in summary["with"]:
            pairs = zip(rounds["with"], rounds["without"])
            summary["ratio"] = statistics.median(a["per_second"] / b["per_second"] for a, b in pairs)
        results[name] = summary
        for running in started:
            running.terminate()
            running.wait()
        started.clear()
        print(name)
        for kind, values in summary.items():
            print("  ", kind, values if kind == "ratio" else
                  "  ".join(f"{key} {value:,.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()))

    compare("unique keys, 64 connections, origin 0 ms", 0, lambda url: wrk(url, 64, options.seconds, "-s", script))
    compare("one hot key, 256 connections, origin 5 ms", 5, lambda url: wrk(url + "/hot", 256, options.seconds))
    compare("burst of 1,000 on one key, origin 50 ms", 50, lambda url: burst(url, 1000))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


try:
    main()
finally:
    for process in started:
        process.kill()
