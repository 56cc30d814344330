"""A real Chromium, driven by the DevTools protocol. It reaches nothing but this machine.

Without a browser, a test that asks for one is skipped; with `PEERGATE_REQUIRE_BROWSER` set, it fails.
"""

import base64
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE_S = 60
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# Of the keys that tests press: the code, the number, and the text that it types.
KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    " ": ("Space", 32, " "),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "End": ("End", 35, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "F6": ("F6", 117, ""),
}
SHIFT = 8


def find_browser():
    """The path of a browser. `PEERGATE_BROWSER` names another one."""
    named = os.environ.get("PEERGATE_BROWSER")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if not found and os.environ.get("PEERGATE_REQUIRE_BROWSER"):
        pytest.fail("no Chromium was found, and PEERGATE_REQUIRE_BROWSER is set", pytrace=False)
    if not found:
        pytest.skip("no Chrome or Chromium was found: install one (Debian: apt-get install chromium), or name it in PEERGATE_BROWSER")
    return found


class Browser:
    """A browser with a profile of its own. It ends with the `with` block."""

    def __enter__(self):
        path = find_browser()
        self.profile = tempfile.TemporaryDirectory(prefix="peergate-browser-", ignore_cleanup_errors=True)
        command = [path, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.url = f"http://127.0.0.1:{self.find_port()}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.profile.cleanup()

    def find_port(self):
        file = pathlib.Path(self.profile.name) / "DevToolsActivePort"
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            text = file.read_text() if file.exists() else ""
            if text.count("\n"):
                return int(text.splitlines()[0])
            time.sleep(0.05)
        raise AssertionError("the browser did not start")

    def open(self, url):
        """A new page that shows `url`."""
        request = urllib.request.Request(f"{self.url}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            page = Page(json.load(response)["webSocketDebuggerUrl"])
        page.go(url)
        return page


class Page:
    """A page. `problems` are its uncaught errors and what it logs as an error; `requests` are the URLs that it asked for."""

    def __init__(self, url):
        self.socket = connect(url, max_size=None, open_timeout=PATIENCE_S, compression=None)
        self.numbers = itertools.count(1)
        self.problems, self.requests, self.events = [], [], []
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.call(f"{domain}.enable")

    def close(self):
        try:
            self.call("Page.close")
        except ConnectionClosed:
            pass
        self.socket.close()

    def call(self, method, **params):
        """Calls a method of the protocol. Events that arrive before its answer are kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = self.receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def receive(self):
        message = json.loads(self.socket.recv(timeout=PATIENCE_S))
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.problems.append(" ".join(str(one.get("value")) for one in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case str(name):
                self.events.append(name)
        return message

    def go(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + PATIENCE_S
        while "Page.loadEventFired" not in self.events:
            assert time.monotonic() < deadline, f"{url} did not load"
            self.receive()

    def run(self, script, *arguments):
        """Runs the body of an async function with these arguments (`a[0]`, `a[1]` …), and returns what it returns."""
        call = f"(async a => {{ {script} }})({json.dumps(arguments)})"
        result = self.call("Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True)
        details = result.get("exceptionDetails")
        assert not details, (details.get("exception") or {}).get("description") or details
        return result["result"].get("value")

    def show_as(self, width=1280, height=800, theme="light"):
        """The size of the window, and the theme of the system."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key, shift=False):
        code, number, text = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()), key)
        more = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": SHIFT if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **({"text": text} if text else {}), **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def write(self, text):
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """Clicks with the mouse into the middle of what the selector finds first."""
        self.hold_mouse(selector)
        self.release_mouse()

    def hold_mouse(self, selector):
        """Presses the mouse there. It is down until `release_mouse`."""
        script = """const part = document.querySelector(a[0]);
            if (!part) return null;
            part.scrollIntoView({block: 'center'});
            const {x, y, width, height} = part.getBoundingClientRect();
            return [x + width / 2, y + height / 2];"""
        place = self.run(script, selector)
        assert place, f"nothing is {selector}"
        self.mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **self.mouse)

    def release_mouse(self):
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **self.mouse)

    def picture(self, path, full=True):
        """Writes a PNG of the window, or of the full page."""
        more = {}
        if full:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            more = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        taken = self.call("Page.captureScreenshot", format="png", **more)
        pathlib.Path(path).write_bytes(base64.b64decode(taken["data"]))
