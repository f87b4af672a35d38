"""Kaggle's own client, made safe: timeouts, errors that say what to do, and no trace of the token.

Only kagglesdk is used, on which the kaggle package stands. The kaggle package is never imported:
its import signs in by itself, over the network and without a timeout, and with VERBOSE set it
prints the token.
"""

import contextlib
import errno
import functools
import json
import math
import os
import re
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from hemotune.errors import StudyError

HOW_TO_SIGN_IN = (
    "make a token at https://www.kaggle.com/settings/api and set KAGGLE_API_TOKEN, or save it in"
    " ~/.kaggle/access_token with mode 600"
)
WEB_PAGE = (
    "something between here and Kaggle answered with a web page, as a proxy or the login page of a"
    " network does; open any page in a browser first, or set HTTPS_PROXY to the right proxy"
)


class Again(Exception):
    """What failed is worth another attempt; `wait` is how many seconds the server asked for, or
    None.
    """

    def __init__(self, why, wait=None):
        super().__init__(why)
        self.wait = wait


def connect():
    """Return (kagglesdk.KaggleClient with timeouts, whether it signs in).

    The token is looked for in the client's order: KAGGLE_API_TOKEN, ~/.kaggle/access_token,
    KAGGLE_USERNAME with KAGGLE_KEY, kaggle.json in KAGGLE_CONFIG_DIR, ~/.kaggle or
    ~/.config/kaggle, a login by `kaggle auth login`. With none, a public data set still comes.
    """
    from kagglesdk import KaggleClient, KaggleCredentials, get_access_token_from_env
    from kagglesdk.kaggle_env import get_env

    home, user, key = (
        Path("~/.kaggle").expanduser(),
        os.environ.get("KAGGLE_USERNAME"),
        os.environ.get("KAGGLE_KEY"),
    )
    try:
        token, _ = get_access_token_from_env()
    except OSError as error:  # the client takes a long token for a path
        token = os.environ["KAGGLE_API_TOKEN"] if error.errno == errno.ENAMETOOLONG else None
    if token and not os.environ.get("KAGGLE_API_TOKEN"):
        warn_if_readable(home / "access_token")
    if not token and not (user and key):
        other = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kaggle"
        folder = os.environ.get("KAGGLE_CONFIG_DIR") or (home if home.exists() else other)
        user, key = from_kaggle_json(Path(folder) / "kaggle.json")
    if any(secret and not re.fullmatch(r"[!-~]+", secret) for secret in (token, user, key)):
        raise StudyError(
            "kaggle: the token holds characters that no token has (spaces, line ends);"
            f" {HOW_TO_SIGN_IN}"
        )

    def client(token):
        made = KaggleClient(
            get_env(),
            verbose=False,
            username=user,
            password=key,
            api_token=token,
            user_agent="hemotune",
        )
        make_safe(made.http_client().__enter__()._session)
        return made

    login = home / "credentials.json"
    if not token and not (user and key) and login.exists():
        warn_if_readable(login)
        saved = KaggleCredentials.load(client(None))
        token = (
            answer_of(saved.get_access_token, "the login of `kaggle auth login`", True)
            if saved
            else None
        )
    return client(token), bool(token or (user and key))


def make_safe(session):
    """Give the client's session timeouts, which it knows none of, and keep it from following the
    link to the zip by itself.
    """
    send = session.send

    def send_once(request, **settings):
        response = send(request, timeout=timeout(), allow_redirects=False, **settings)
        if response.is_redirect:  # the client would read its empty body as JSON
            response.headers.pop("Content-Type", None)
        return response

    session.send = send_once


def from_kaggle_json(path):
    """Return (username, key) of Kaggle's older kind of token, or (None, None)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        user, key = str(content["username"]), str(content["key"])
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(
            f"{path}: cannot be read, or is no JSON with username and key; {HOW_TO_SIGN_IN}"
        ) from None
    warn_if_readable(path)
    return user, key


@functools.cache  # once a run
def warn_if_readable(path):
    """A token that others can read is a warning: it works, but it may be stolen already."""
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o077:
            print(
                f"warning: {path} holds your Kaggle token and other users can read it: chmod 600"
                f" {path}",
                file=sys.stderr,
                flush=True,
            )


def answer_of(call, what, signed_in):
    """Call Kaggle's client; what goes wrong is said without the text of its errors, which may hold
    a token or a signed link.

    Raises:
        StudyError: another attempt would not help.
        Again: it may.
    """
    import requests

    try:
        return call()
    except requests.HTTPError as error:
        response = error.response
        raise refusal(
            response.status_code if response.status_code >= 400 else response.json()["code"],
            response,
            what,
            signed_in,
        ) from None
    except (ValueError, TypeError, AttributeError):  # no JSON, or none that the client understands
        raise StudyError(f"kaggle: {what}: {WEB_PAGE}") from None
    except requests.RequestException as error:
        raise Again(no_connection(error)) from None


def no_connection(error):
    """Name the kind of a requests exception; its text may hold the signed link."""
    import requests

    stalled = isinstance(error, requests.Timeout) or "Read timed out" in str(error)
    return (
        f"stalled: not a byte for {timeout()[1]:g} s"
        if stalled
        else f"no connection, or it broke off ({type(error).__name__})"
    )


def refusal(status, response, what, signed_in):
    """Return the exception for an HTTP status of Kaggle or of its storage."""
    if status == 429 or status == 408 or status >= 500:
        return Again(
            {429: "too many requests (429)"}.get(status, f"the server failed ({status})"),
            retry_after(response),
        )
    texts = {
        401: f"the token was refused (401): it is wrong or expired; {HOW_TO_SIGN_IN}",
        403: (
            "not allowed (403): it is private, or its rules wait for your consent; open its page on"
            " kaggle.com with the token's account"
        ),
        404: (
            "there is no such data set, or not this version of it (404); correct dataset.handle or"
            " dataset.version in the profile"
        ),
        407: "the proxy asks for a password (407); set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    }
    text = texts.get(status, f"an unexpected answer ({status})")
    if not signed_in and status in (401, 403):
        text = f"it is not public and no token was found ({status}); {HOW_TO_SIGN_IN}"
    return StudyError(f"kaggle: {what}: {text}")


def retry_after(response):
    """Return the seconds a server asks us to wait (a number or a date), or None."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return int(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


def current_version(handle):
    """Return (number, ISO date) of the current version; raises as `answer_of`."""
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = handle.split("/")
    client, signed_in = connect()
    with client:
        found = answer_of(
            lambda: client.datasets.dataset_api_client.get_dataset(request), handle, signed_in
        )
    if not found.current_version_number:
        raise StudyError(
            f"kaggle: {handle}: the answer names no current version; pin dataset.version in the"
            " profile"
        )
    return (
        found.current_version_number,
        found.last_updated.isoformat() if found.last_updated else "",
    )


def link_to_zip(handle, version):
    """Return the answer that carries the signed link to a version's zip in its Location header;
    raises as `answer_of`.
    """
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = handle.split("/")
    request.dataset_version_number = int(version)
    client, signed_in = connect()
    return answer_of(
        lambda: client.datasets.dataset_api_client.download_dataset(request),
        f"{handle} version {version}",
        signed_in,
    )


def seconds(variable, default):
    """Return a positive number of seconds from the environment."""
    try:
        value = float(os.environ.get(variable) or default)
    except ValueError:
        value = -1.0
    if not (0 < value < math.inf):
        raise StudyError(f"{variable}: {os.environ[variable]!r} is no number of seconds above 0")
    return value


def timeout():
    """Return (seconds to connect, seconds between two bytes)."""
    stall = seconds("HEMOTUNE_TIMEOUT", 60)
    return min(stall, 20), stall
