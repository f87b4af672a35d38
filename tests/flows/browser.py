"""A browser without a window, driven by its own protocol (Chrome DevTools)."""

import json
import shutil
import subprocess

import httpx
from websockets.sync.client import connect

from tests.flows.toy import end, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def open_pages(folder, pages):
    """Open each of `pages`, {address: text}, in a browser until it shows the text; return all
    addresses that the pages asked.
    """
    asked, port = {}, folder / "DevToolsActivePort"
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
                    event = message["params"]
                    if message["method"] == "Network.requestWillBeSent":
                        asked[event["requestId"]] = event["request"]["url"]
                    if event.get("blockedReason") == "csp":  # it was not sent
                        del asked[event["requestId"]]

            def shown():
                looked = do("Runtime.evaluate", expression="document.body?.innerText ?? ''")
                return looked["result"]["value"]

            do("Network.enable")
            for page, text in pages.items():
                do("Page.navigate", url=page)
                wait_for(lambda: text in shown())  # noqa: B023
    finally:
        end(process)
    return list(asked.values())
