"""What runs in the process of Prefect's server, with its pages.

    python -m flows.server_process SOCKET      what flows.server starts; not for users

`prefect server start` cannot be used: it takes no open socket, and its clients wait for two seconds
whenever a request finds SQLite locked.
"""

import asyncio
import logging
import os
import socket
import sys
import threading
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The pages' code runs in the page and in workers made of blobs; the report's figures are data.
POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline';"
    " script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:"
)
EVENT_LOGGER = "prefect.server.events.services.event_persister"


def retry_if_locked(app: ASGIApp, tries: int = 10, pause: float = 0.03) -> ASGIApp:
    """Wrap an ASGI application so that a request which finds the database locked is retried here.

    SQLite refuses at once to write in a transaction that began to read before another one wrote.
    Prefect then answers 503, and its client waits for two seconds before it retries: this delayed
    one in five task starts.
    """

    async def retrying_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        request = [await receive()]
        while request[-1].get("more_body"):
            request.append(await receive())
        for attempt in range(1, tries + 1):
            if not await is_locked(request, scope, receive, send, last=attempt == tries):
                return
            await asyncio.sleep(pause * attempt)

    async def is_locked(
        request: list[Message], scope: Scope, receive: Receive, send: Send, last: bool
    ) -> bool:
        """Answer a request, unless the answer is 503 and this is not the last try."""
        left, locked = iter(request), False

        async def receive_again() -> Message:
            return next(left, None) or await receive()

        async def send_unless_locked(message: Message) -> None:
            nonlocal locked
            locked = locked or (
                message["type"] == "http.response.start" and message["status"] == 503 and not last
            )
            if not locked:
                await send(message)

        try:
            await app(dict(scope), receive_again, send_unless_locked)
        except Exception:
            if not locked:
                raise
        return locked

    return retrying_app


def keep_to_itself(app: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application so that browsers ask no other server for anything on its pages.

    Prefect's newer pages contact a service that measures their use also where its settings forbid
    to; others show pictures from GitHub.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("Content-Security-Policy", POLICY)
            await send(message)

        await app(scope, receive, send_with_policy)

    return application


def is_no_resent_event(record: logging.LogRecord) -> bool:
    """Whether a log record is not about events that the database already holds.

    After a restart clients send again what the old server did not confirm. Prefect cannot store a
    batch of only such events, and in the end drops it with a traceback. Its feed of events may then
    lack some; runs and logs are complete.
    """
    error = record.exc_info and record.exc_info[1]
    return not (error and "NOT NULL constraint failed: events.occurred" in str(error))


def serve(socket_: socket.socket) -> None:
    """Answer at a socket that listens, until the input of this process closes."""
    # Prefect has no setting for this traceback.
    logging.getLogger(EVENT_LOGGER).addFilter(is_no_resent_event)
    server = None

    def end_with_parent() -> None:
        sys.stdin.read()
        if server is None:  # the imports below take seconds
            os._exit(1)
        logging.getLogger("uvicorn.error").disabled = True  # of requests that end with it
        server.should_exit = True
        time.sleep(6)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api import server as prefect_server

    import flows.message  # noqa: F401 - Prefect finds the class by its name

    create_ui_app = prefect_server.create_ui_app
    # Prefect gives a server with few services no pages, and has no setting for it; ours has them,
    # for a run prints where to watch it.
    prefect_server.create_ui_app = lambda ephemeral: create_ui_app(ephemeral=False)
    app = keep_to_itself(retry_if_locked(prefect_server.create_app()))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    )
    server.run(sockets=[socket_])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
