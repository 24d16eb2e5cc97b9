"""A headless Chromium driven over its debugging pipe: what a page logs, what it asks of the network, how it lies."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 60.0


def program() -> str | None:
    """The browser of this machine; None if there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One tab."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._buffer, self._number = to, back, b"", 0
        self.events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the DevTools protocol on the tab."""
        return self._call(method, parameters, self._session)

    def open(self, page: Path | str, width: int, height: int = 900, dark: bool = False) -> None:
        """Show a file or an address in a window of `width` CSS pixels."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._wait(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events))

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript, run by the debugger, comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + TIMEOUT_S
        while not self.value(expression):
            assert time.monotonic() < until, f"{expression} never came true"
            time.sleep(0.02)

    def press(self, key: str, code: int, text: str = "", modifiers: int = 0) -> None:
        """Press a key; 2 is Ctrl and 8 Shift among `modifiers`."""
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def complaints(self) -> list[str]:
        """Console messages, log entries and uncaught errors since the page was opened."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Addresses of all requests since the page was opened; the first is the page itself."""
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        number, found = self._number, []
        self._wait(lambda: bool(found), lambda answer: found.append(answer) if answer.get("id") == number else None)
        assert "error" not in found[0], found[0]
        return found[0]["result"]

    def _wait(self, done: Any, seen: Any = lambda message: None) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not done():
            ready, _, _ = select.select([self._back], [], [], max(until - time.monotonic(), 0))
            assert ready, "the browser gave no answer"
            self._buffer += os.read(self._back, 1 << 20)
            *messages, self._buffer = self._buffer.split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                else:
                    seen(message)


@contextlib.contextmanager
def running(profile: Path) -> Iterator[Browser]:
    """A browser with a profile folder of its own."""
    found = program()
    assert found is not None
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    # The pipes have to be file descriptors 3 and 4 of the browser.
    script = f'exec "$@" 3<&{from_us} 4>&{to_us}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", found, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={profile}", "--remote-debugging-pipe"],
        pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(to_us)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_browser)
        os.close(from_browser)
