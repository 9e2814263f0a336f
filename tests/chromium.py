"""A real browser for tests: Chromium without a window, driven over its debugging pipe, no driver needed."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SECONDS = 60


class Browser:
    """One page of the browser (Chrome DevTools Protocol, messages ended by NUL on two pipes)."""

    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = read
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self.violations: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self._send(f"{domain}.enable")

    _session: str | None = None

    def _listen(self) -> None:
        buffer = b""
        while chunk := os.read(self._read, 65_536):
            *messages, buffer = (buffer + chunk).split(b"\0")
            for message in map(json.loads, messages):
                with self._changed:
                    if "id" in message:
                        self._answers[message["id"]] = message
                    elif message["method"] == "Log.entryAdded":
                        entry = message["params"]["entry"]
                        if not entry.get("url", "").endswith("/favicon.ico"):  # which every browser tries
                            self.violations.append(entry["text"])
                    self._changed.notify_all()

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._answers, _SECONDS), f"{method}: no answer"
            answer = self._answers.pop(number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        answer = self._send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        """Type an address and wait for the page it leads to."""
        self.run("window.former = true")
        self._send("Page.navigate", url=url)
        self._loaded()

    def click(self, selector: str) -> None:
        """Press a button or follow a link, and wait for the page it leads to."""
        self.run("window.former = true")
        self.press(selector)
        self._loaded()

    def press(self, selector: str) -> None:
        """Press a button that leads to no other page."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def downloads(self, directory: Path) -> None:
        """Let the page give files, into this directory."""
        self._send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(directory))

    def wait(self, script: str, why: str) -> None:
        """Wait until an expression on the page is true."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):  # between two pages there is nothing to ask
                if self.run(script):
                    return
            time.sleep(0.05)
        raise AssertionError(why)

    def _loaded(self) -> None:
        self.wait("!window.former && document.readyState === 'complete'", "the page did not load")

    @property
    def url(self) -> str:
        """The page's address."""
        return str(self.run("location.href"))

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self.run("document.body.innerText"))

    def screenshot(self) -> str:
        """The page as PNG in base64."""
        return str(self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])


@contextmanager
def browser(*, languages: str = "en") -> Iterator[Browser]:
    """A browser with a profile of its own."""
    assert BINARY is not None
    profile = tempfile.mkdtemp(prefix="cds-chromium-")
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()

    def wire() -> None:  # the browser reads its descriptor 3 and writes 4; ours may be one of the two
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (to_browser, to_us)]
        os.dup2(ends[0], 3)
        os.dup2(ends[1], 4)

    options = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--remote-debugging-pipe", f"--user-data-dir={profile}", f"--accept-lang={languages}"),
        *("--no-proxy-server", "--disable-background-networking", "--disable-component-update"),
    ]
    process = subprocess.Popen(
        [BINARY, *options],
        preexec_fn=wire,  # noqa: PLW1509 a test's process; what runs between is two system calls
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(to_us)
    try:
        yield Browser(from_us, from_browser)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait(10)
        os.close(from_us)
        shutil.rmtree(profile, ignore_errors=True)
