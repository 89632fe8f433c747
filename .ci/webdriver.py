"""Headless Chromium by WebDriver, and programs that are started and ended; nothing but Python's standard library."""
import base64, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]
# Seconds: for Debian's packages, for a program to start.
INSTALL, START = 300, 30
started = []


def install(packages):
    if not packages:
        return
    # Without a network it says so soon, and does not hang.
    apt = ["apt-get", "-qq", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=60"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", "fonts-dejavu-core", *packages]):
        try:
            subprocess.run(apt + command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace", timeout=INSTALL, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
        except FileNotFoundError:
            raise SystemExit(f"no apt-get here: install {', '.join(packages)} by hand")
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{error.output}apt-get {command[0]} failed, so these are missing: {', '.join(packages)}")
        except subprocess.TimeoutExpired:
            raise SystemExit(f"apt-get {command[0]} took over {INSTALL} s, so these are missing: {', '.join(packages)}")


class Page:
    """A session of WebDriver (W3C)."""

    def __init__(self, driver):
        self.at = driver
        self.profile = tempfile.mkdtemp(prefix="profile-")
        options = {"args": [*BROWSER, f"--user-data-dir={self.profile}"], "binary": shutil.which("chromium")}
        session = self.call("POST", "/session", capabilities={"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}})
        self.at += "/session/" + session["sessionId"]

    def call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self.at + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"chromedriver: {error.read().decode()}")

    def run(self, script):
        return self.call("POST", "/execute/sync", script=script, args=[])

    def cdp(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def colours(self, scheme, forced=False):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme},
                                                         {"name": "forced-colors", "value": "active" if forced else "none"}])

    def size(self, width, height):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def text(self, name):
        return self.run(f"return document.getElementById('{name}').textContent")

    def close(self):
        self.call("DELETE", "")
        shutil.rmtree(self.profile, ignore_errors=True)

    def attribute(self, name, attribute):
        return self.run(f"return document.getElementById('{name}').getAttribute('{attribute}')")

    def shown(self, name):
        return self.run(f"return document.getElementById('{name}').checkVisibility()")

    def number(self, name):
        digits = re.sub(r"[^\d.]", "", self.text(name))
        return float(digits or 0)

    def press(self, name):
        element = self.call("POST", "/element", using="css selector", value="#" + name)
        self.call("POST", f"/element/{next(iter(element.values()))}/click")

    def shoot(self, path):
        # Two frames, so that the charts have the new size and colours.
        self.call("POST", "/execute/async", script="requestAnimationFrame(() => requestAnimationFrame(arguments[0]))", args=[])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


def start(command, *patterns):
    """The process, and the first groups of the patterns in what the program prints."""
    output = subprocess.PIPE if patterns else subprocess.DEVNULL
    # A group of its own: whatever the browser leaves behind is ended with its driver.
    process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.DEVNULL, text=True,
                               start_new_session=True)
    started.append(process)
    found = [process]
    if not patterns:
        return found
    late = threading.Timer(START, process.kill)
    late.start()
    for line in process.stdout:
        match = re.search(patterns[len(found) - 1], line)
        if match:
            found.append(match[1])
        if len(found) > len(patterns):
            late.cancel()
            # Nobody must wait because it prints more.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found
    raise SystemExit(f"{command[0]} did not start within {START} s")


def end(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        print(f"{process.args[0]} did not end within 20 s", file=sys.stderr)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def end_all():
    for process in reversed(started):
        if process.poll() is None:
            end(process)


def check(what, holds, found=""):
    print("ok    " if holds else "FAILED", what)
    if not holds:
        raise SystemExit(f"{what}: {found}")


def until(what, holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            check(what, False)
        time.sleep(.05)
    check(what, True)
