"""A browser without a window, driven by its own protocol (Chrome DevTools)."""

import json
import shutil
import subprocess
import time
from contextlib import suppress

import httpx
from websockets.sync.client import connect

from tests.flows.toy import end, wait_for

QUIET = 1  # seconds without a request after which a page is taken to ask nothing more
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Traffic:
    """The addresses that pages asked, by request, and the requests that have no answer yet."""

    def __init__(self):
        self.asked, self.pending, self.latest = {}, set(), time.monotonic()

    def note(self, message):
        event, request = message["params"], message["params"].get("requestId")
        match message["method"]:
            case "Network.requestWillBeSent":
                url = self.asked[request] = event["request"]["url"]
                if url.startswith("http"):  # the end of a worker's `blob:` is not told
                    self.pending.add(request)
            case "Network.webSocketCreated":  # it stays open: nothing waits for its end
                self.asked[request] = event["url"]
            case "Network.loadingFinished" | "Network.loadingFailed":
                self.pending.discard(request)
                if event.get("blockedReason") == "csp":  # it was not sent
                    del self.asked[request]
            case _:
                return
        self.latest = time.monotonic()

    def settle(self, browser, seconds=60):
        """Wait until no request has been sent or was pending for QUIET seconds.

        Raises:
            TimeoutError: that was not so within `seconds`.
        """
        until = time.monotonic() + seconds
        while self.pending or time.monotonic() < self.latest + QUIET:
            if time.monotonic() > until:
                waiting = [self.asked[request] for request in self.pending]
                raise TimeoutError(f"requests after {seconds} s, without an answer: {waiting}")
            with suppress(TimeoutError):
                self.note(json.loads(browser.recv(timeout=QUIET / 4)))


def open_pages(folder, pages):
    """Open each of `pages`, {address: text}, in a browser until it shows the text and asks
    nothing more; return all addresses that the pages asked, WebSockets too.
    """
    traffic, port = Traffic(), folder / "DevToolsActivePort"
    options = ["--headless", "--no-sandbox", f"--user-data-dir={folder}"]
    options += ["--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen([CHROMIUM, *options], stderr=subprocess.DEVNULL)
    try:
        number = wait_for(lambda: port.exists() and port.read_text().split("\n")[0])
        tabs = httpx.get(f"http://127.0.0.1:{number}/json", trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None) as browser:

            def do(method, **params):
                browser.send(json.dumps({"id": 1, "method": method, "params": params}))
                for message in map(json.loads, browser):
                    if message.get("id") == 1:
                        return message["result"]
                    traffic.note(message)

            def shown():
                looked = do("Runtime.evaluate", expression="document.body?.innerText ?? ''")
                return looked["result"]["value"]

            do("Network.enable")
            for page, text in pages.items():
                do("Page.navigate", url=page)
                wait_for(lambda: text in shown())  # noqa: B023
                traffic.settle(browser)
    finally:
        end(process)
    return list(traffic.asked.values())
