#!/usr/bin/env python3
"""Large, slow, dead and endless bodies through the reverse proxy, with the layer and without it.

    benches/transfers.py [--rounds 3] [--json FILE]

Python's standard library is all that it needs. Each scenario has an origin of its own, in a process of its own; all clients
are in one process, so that none of them waits for another to be scheduled. Times are in milliseconds from the first request of
the scenario, or for a client that comes later from its own. Memory, in MiB, is what the bodies take: as many connections with a
response of five bytes each come before it is first looked at. What is printed are medians over the rounds. Of two cores, the proxy
has one.
"""
import argparse, json, multiprocessing, os, pathlib, re, select, socket, statistics, subprocess, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
CORES = sorted(os.sched_getaffinity(0))
PROXY, OTHERS = (CORES[:1], CORES[1:]) if len(CORES) > 1 else (CORES, CORES)
MIB = 1 << 20
BLOCK = bytes(range(256)) * (MIB // 256)


# ===== origins =====

def live(connection, _):
    """8 MiB in chunks, over one second."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
    began, pieces = time.monotonic(), 64
    for number in range(pieces):
        time.sleep(max(0, began + number / pieces - time.monotonic()))
        connection.sendall(b"%x\r\n" % (MIB // 8) + BLOCK[:MIB // 8] + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def known(connection, _):
    """32 MiB of a known length, as fast as they are read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (32 * MIB))
    for _ in range(32):
        connection.sendall(BLOCK)


def dead(connection, number):
    """1 MiB. The first time nothing comes after its half, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % MIB)
    connection.sendall(BLOCK[:MIB // 2])
    if number == 1:
        time.sleep(600)
    connection.sendall(BLOCK[MIB // 2:])


def watch(connection, _):
    """An event at once, and one each second."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(600):
        event = b'{"event":%d}\n' % number
        connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        time.sleep(1)


def serve(answer, listener, calls):
    os.sched_setaffinity(0, OTHERS)

    def handle(connection):
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            if head.startswith(b"GET /hello"):
                return connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            with calls.get_lock():
                calls.value += 1
                number = calls.value
            answer(connection, number)
        except OSError:
            pass
        finally:
            connection.close()

    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


# ===== clients =====

class Client:
    def __init__(self, start=0.0, pause=None, patience=60.0, events=None, path="/transfer"):
        self.start, self.patience, self.events, self.path = start, patience, events, path
        # After so many bytes it does not read for so many seconds.
        self.pause = pause
        self.first = self.end = self.socket = None
        self.received = 0

    def ask(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(f"GET {self.path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        self.asked = time.monotonic()

    def is_whole(self, least):
        return self.end is not None and self.received >= least


def run(address, clients):
    """Until each client has its response, or has lost patience."""
    poll, began = select.epoll(), time.monotonic()
    waiting, reading, paused = sorted(clients, key=lambda client: client.start), {}, []
    buffer = memoryview(bytearray(256 << 10))
    while waiting or reading or paused:
        now = time.monotonic()
        while waiting and began + waiting[0].start <= now:
            client = waiting.pop(0)
            client.ask(address)
            reading[client.socket.fileno()] = client
            poll.register(client.socket, select.EPOLLIN)
        for until, client in paused[:]:
            if until <= now:
                paused.remove((until, client))
                reading[client.socket.fileno()] = client
                poll.register(client.socket, select.EPOLLIN)
        for number, _ in poll.poll(0.005):
            client = reading[number]
            size = client.socket.recv_into(buffer)
            now = time.monotonic()
            if size and client.first is None:
                client.first = (now - client.asked) * 1e3
            client.received += size
            if not size:
                client.end = (now - client.asked) * 1e3
            over = not size or client.events and bytes(buffer[:size]).count(b"event")
            if over:
                client.event = (now - client.asked) * 1e3
            if over or client.pause and client.received >= client.pause[0]:
                poll.unregister(number)
                del reading[number]
                if over:
                    if not client.events:
                        client.socket.close()
                else:
                    paused.append((now + client.pause[1], client))
                    client.pause = None
        for number, client in list(reading.items()):
            if time.monotonic() - client.asked > client.patience:
                poll.unregister(number)
                del reading[number]
                client.socket.close()
    for client in clients:
        client.socket.close()


# ===== scenarios =====

def middle(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else float("inf")


def hundred(address):
    clients = [Client() for _ in range(100)]
    run(address, clients)
    assert all(client.is_whole(8 * MIB) for client in clients)
    return {"first p50": middle(client.first for client in clients), "end p50": middle(client.end for client in clients)}


def halfway(address):
    late = [Client(start=.5) for _ in range(20)]
    run(address, [Client(), *late])
    assert all(client.is_whole(8 * MIB) for client in late)
    return {"first p50": middle(client.first for client in late)}


def stops(leads):
    def scenario(address):
        pause = (MIB, 1.2)
        one, others = Client(pause=pause), [Client() for _ in range(9)]
        leader = [] if leads else [Client()]
        # Who asks first leads.
        clients = [one, *others] if leads else [*leader, one, *others]
        run(address, clients)
        assert all(client.is_whole(32 * MIB) for client in clients)
        return {"others' end p50": middle(client.end for client in [*leader, *others])}
    return scenario


def visitors(address):
    clients = [Client(start=number / 10, patience=1.0) for number in range(600)]
    run(address, clients)
    return {"served": sum(client.is_whole(MIB) for client in clients)}


def second_watcher(address):
    second = Client(start=.5, events=1)
    run(address, [Client(events=1), second])
    return {"first event": second.event}


SCENARIOS = [
    ("8 MiB in chunks over 1 s, 100 clients", live, hundred, 100, 3, {"calls": 1, "first p50": 105, "end p50": 1100, "memory": 4}),
    ("the same, 20 join halfway", live, halfway, 21, 3, {"calls": 2, "first p50": 106}),
    ("the same, 20 join halfway, --max-body 16M", live, halfway, 21, 3, {"calls": 1, "first p50": 5}),
    ("32 MiB, the leader stops for 1.2 s", known, stops(True), 10, 3, {"calls": 3, "others' end p50": 180, "memory": 6}),
    ("32 MiB, a follower stops for 1.2 s", known, stops(False), 11, 3, {"calls": 2, "others' end p50": 180, "memory": 6}),
    ("dead at half, 600 visitors in a minute", dead, visitors, 10, 1, {"served": -585}),
    ("a second watcher", watch, second_watcher, 2, 3, {"first event": 50}),
]


def memory(process):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


def turn(answer, scenario, connections, *more):
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    calls = multiprocessing.Value("i", 0)
    origin = multiprocessing.Process(target=serve, args=(answer, listener, calls), daemon=True)
    origin.start()
    command = [RELEASE / "reverse_proxy", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:%d" % listener.getsockname()[1], *more]
    proxy = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                             preexec_fn=lambda: os.sched_setaffinity(0, PROXY))
    try:
        host, port = proxy.stdout.readline().split()[-1].removeprefix("http://").split(":")
        address = (host, int(port))
        run(address, [Client(path="/hello") for _ in range(connections)])
        before = memory(proxy)
        measured = scenario(address)
        return {"calls": calls.value} | measured | {"memory": memory(proxy) - before}
    finally:
        proxy.terminate()
        proxy.wait()
        origin.terminate()
        origin.join()
        listener.close()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, help="of each scenario")
    options.add_argument("--only", help="scenarios whose name has these words")
    options.add_argument("--json", type=pathlib.Path, help="where all that was measured is written")
    options = options.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "reverse_proxy"], cwd=ROOT, check=True)
    os.sched_setaffinity(0, OTHERS)
    results = []
    for name, answer, scenario, connections, rounds, wanted in SCENARIOS:
        if options.only and options.only not in name:
            continue
        more = name.partition(", --")[2].split()
        more = ["--" + more[0], *more[1:]] if more else []
        turns = {"without": [], "with": []}
        for number in range(options.rounds or rounds):
            for kind in sorted(turns, reverse=number % 2):
                turns[kind].append(turn(answer, scenario, connections, *(more if kind == "with" else ["--no-coalesce"])))
        print(f"\n{name}")
        for kind, all in turns.items():
            medians = {key: statistics.median(turn[key] for turn in all) for key in all[0]}
            print(f"  {kind:8}" + "".join(f"{key} {value:9.1f}   " for key, value in medians.items()))
            results.append({"name": name, "kind": kind, "median": medians})
        for key, want in wanted.items():
            got = results[-1]["median"][key]
            met = got >= -want if want < 0 else got <= want
            print(f"    {key}: {got:.1f}, wanted {'at least' if want < 0 else 'at most'} {abs(want)}: {'met' if met else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
