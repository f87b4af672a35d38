"""A stand-in for Kaggle and its storage on 127.0.0.1, as far as kagglesdk shows what they answer;
faults are scripted.

The client reaches it by its own means, without a hook in our code: KAGGLE_API_ENVIRONMENT=LOCALHOST
makes it speak to http://localhost, and http_proxy leads that, and the storage's made-up host, here.

By hand: `python -m tests.tasks.download.kaggle_server ZIP` serves a zip as version 1 and prints the
variables to set.
"""

import base64
import hashlib
import json
import re
import sys
import threading
import time
from collections import defaultdict, deque
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HANDLE = "paultimothymooney/blood-cells"
SIGNATURE = "signature-that-nobody-may-see"


class KaggleServer:
    """Serves `versions`, {number: bytes of the zip}; with a `token` (or "user:key") set, only to
    whoever sends it.

    `faults[place]`, place one of GetDataset, DownloadDataset, storage, is a queue: each request to
    that place takes one; None or an empty queue is a proper answer. A fault is a dict:
        status, headers, body, type    this answer instead
        cut: n                         n bytes of the body, then the connection breaks
        stall: n                       n bytes of the body, then nothing more
        pace: seconds                  the body slowly: a pause after each 16 KiB
        announce: n                    Content-Length differs by n from the bytes that are sent
        headers                        with one of these four: headers that replace the proper ones
            (None: left out)
    `seen` lists the requests: place, headers (in lower case), at (seconds). `sent` counts bytes of
    zips.
    """

    def __init__(self, versions, token=None):
        self.versions, self.token = versions, token
        self.faults = defaultdict(deque)
        self.seen, self.sent, self.closing = [], 0, threading.Event()
        self.modified = "2018-04-21T21:06:30.000Z"
        self.http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (Handler,), {"kaggle": self})
        )
        self.http.daemon_threads = True

    def __enter__(self):
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    @property
    def environment(self):
        proxy = f"http://127.0.0.1:{self.http.server_port}"
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": proxy,
            "HTTP_PROXY": proxy,
            "no_proxy": "",
            "NO_PROXY": "",
        }

    def places(self):
        return [request["place"] for request in self.seen]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        place = self.path.rpartition("/")[2]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.fault(place):
            return
        if place == "IntrospectToken":
            self.answer(200, {"active": asked["token"] == self.kaggle.token, "username": "u"})
        elif self.kaggle.token and not self.signed_in():
            sent_token = self.headers.get("Authorization")
            self.refuse(
                401 if sent_token else 403, "Unauthenticated" if sent_token else "Permission denied"
            )
        elif f"{asked.get('ownerSlug')}/{asked.get('datasetSlug')}" != HANDLE:
            self.refuse(404, "Not found")
        elif place == "GetDataset":
            newest = max(self.kaggle.versions)
            content = {
                "id": 9233,
                "ref": HANDLE,
                "currentVersionNumber": newest,
                "lastUpdated": self.kaggle.modified,
            }
            self.answer(200, content | {"totalBytes": len(self.kaggle.versions[newest])})
        elif place == "DownloadDataset":
            version = asked.get("datasetVersionNumber") or max(self.kaggle.versions)
            if version not in self.kaggle.versions:
                return self.refuse(404, "Not found")
            link = f"http://storage.invalid/archive/{version}?X-Goog-Signature={SIGNATURE}"
            self.answer(302, b"", {"Location": link})

    def do_GET(self):
        fault = self.fault("storage")
        if fault is True:
            return
        fault = fault or {}
        data = self.kaggle.versions[int(re.search(r"/archive/(\d+)\?", self.path)[1])]
        headers = {
            "Content-Type": "application/zip",
            "Accept-Ranges": "bytes",
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
            "Last-Modified": formatdate(1524344790, usegmt=True),
        }
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start, status = int(part[1]) if part else 0, 200
        if part and self.headers.get("If-Range") in (
            None,
            headers["ETag"],
            headers["Last-Modified"],
        ):
            status, whole = 206, len(data)
            if start >= whole:
                return self.answer(416, b"", {"Content-Range": f"bytes */{whole}"})
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        body = data[start:] if status == 206 else data
        headers["Content-Length"] = str(len(body) + fault.get("announce", 0))
        self.head(status, headers | fault.get("headers", {}))
        end = fault.get("cut", fault.get("stall", len(body)))
        for at in range(0, end, 1 << 14):
            block = body[at : min(at + (1 << 14), end)]
            self.kaggle.sent += len(block)
            self.wfile.write(block)
            time.sleep(fault.get("pace", 0))
        if "stall" in fault:
            self.kaggle.closing.wait()
        self.close_connection = self.close_connection or bool(fault)

    def fault(self, place):
        """Note the request; give a scripted answer in place of the proper one (True), or the fault
        that the body will show.
        """
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.kaggle.seen.append({"place": place, "headers": headers, "at": time.monotonic()})
        queue = self.kaggle.faults[place]
        fault = queue.popleft() if queue else None
        if fault and ("status" in fault or "body" in fault):
            content = {"Content-Type": fault.get("type", "text/html")}
            self.answer(
                fault.get("status", 200),
                fault.get("body", b"<html>SECRET</html>"),
                content | fault.get("headers", {}),
            )
            return True
        if fault and place != "storage":  # a stall before the first byte
            self.kaggle.closing.wait()
            return True
        return fault

    def signed_in(self):
        basic = "Basic " + base64.b64encode(self.kaggle.token.encode()).decode()
        return self.headers.get("Authorization") in (f"Bearer {self.kaggle.token}", basic)

    def refuse(self, status, message):
        self.answer(status, {"code": status, "message": message})

    def answer(self, status, content, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.head(
            status,
            {"Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers),
        )
        self.wfile.write(body)

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def handle(self):
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the test killed the client

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with KaggleServer({1: Path(sys.argv[1]).read_bytes()}) as server:
        print(" ".join(f"{name}={value}" for name, value in server.environment.items()), flush=True)
        threading.Event().wait()
