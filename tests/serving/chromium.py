"""A headless Chromium, driven over the DevTools protocol: as much of it as the tests of the search page need."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium")
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-port=0",
]
_KEYS = {"Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " "), "Escape": ("Escape", 27, ""), "/": ("Slash", 191, "/")}
_KEYS |= {f"Arrow{way}": (f"Arrow{way}", 37 + i, "") for i, way in enumerate(("Left", "Up", "Right", "Down"))}


class Page:
    """One tab: what it did (requests, console errors), and hands to use it."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self.requests, self.errors = [], []
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """Call a method of the protocol; returns its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, event):
        said = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append((said["request"]["method"], said["request"]["url"]))
        elif event["method"] == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"])
        elif event["method"] == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
            self.errors.append(said["args"])
        elif event["method"] == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"])

    def value(self, script):
        """What a JavaScript expression comes to, promises awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, timeout_s=20.0):
        """Wait until an expression is true; returns its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.value(script)):
            assert time.monotonic() < deadline, f"never true: {script}; errors: {self.errors}"
            time.sleep(0.03)
        return value

    def open(self, url):
        """Go somewhere and wait until it is loaded."""
        self.send("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState == 'complete'")

    def click(self, selector):
        """Press the mouse in the middle of an element, as a person does: it must be there and not covered."""
        self.wait(f"!!document.querySelector({json.dumps(selector)})")
        box = self.value(
            "(e => { e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            f"return [b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        self.click_at(*box)

    def click_at(self, x, y):
        """Press the mouse somewhere in the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def type(self, text):
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, *keys):
        """Press keys one after the other: a letter, or one of ``_KEYS``."""
        for key in keys:
            code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key[0].upper()), key))
            named = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self.send("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
            self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def upload(self, selector, path):
        """Choose a file in a file input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def resize(self, width, height, *, is_phone=False, scale=1):
        """Give the window a size, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme):
        """Say that the system is ``dark`` or ``light``."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        """Write what the window shows as PNG."""
        Path(path).write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def run_chromium(folder, *flags):
    """A browser with its profile in an empty folder; gives one page."""
    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, *flags, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        said, deadline = Path(folder) / "DevToolsActivePort", time.monotonic() + 60
        while not said.exists() or "\n" not in said.read_text():
            assert process.poll() is None and time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.05)
        port = said.read_text().split()[0]
        tabs = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, proxy=None, max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(20)
