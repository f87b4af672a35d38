"""Kaggle's client with timeouts, errors that name the fix, and no token in any output.

It is based on kagglesdk, like the kaggle package. The kaggle package itself is never imported:
importing it signs in over the network, without a timeout, and prints the token if VERBOSE is set.
"""

import contextlib
import errno
import functools
import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from kagglesdk import KaggleClient, KaggleCredentials, get_access_token_from_env
from kagglesdk.datasets.types.dataset_api_service import (
    ApiDownloadDatasetRequest,
    ApiGetDatasetRequest,
)
from kagglesdk.kaggle_env import get_env
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from hemotune.errors import StudyError
from hemotune.kaggle_json import kaggle_json

HOW_TO_SIGN_IN = (
    "create a token at https://www.kaggle.com/settings/api and set KAGGLE_API_TOKEN, or save it in "
    "~/.kaggle/access_token with mode 600"
)
WEB_PAGE = (
    "a proxy or the network's login page answered with a web page instead of Kaggle; open any page "
    "in a browser first, or set HTTPS_PROXY to the right proxy"
)


class RetryableError(Exception):
    """A failure after which another attempt may succeed."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait  # seconds requested by the server, or None


@dataclass(frozen=True)
class Credentials:
    """A token, or the older pair of user name and key, or nothing."""

    token: str | None = None
    username: str | None = None
    key: str | None = None

    def __bool__(self) -> bool:
        return bool(self.token or (self.username and self.key))


@dataclass(frozen=True)
class Version:
    """A version of a data set."""

    number: int
    updated: str | None  # ISO date of the version; None if it was not requested
    asked: datetime  # when Kaggle last answered


def sign_in() -> Credentials:
    """Return the credentials to use, if any: a public data set needs none.

    A login by `kaggle auth login` is used if there is nothing else, and renewed if it has expired.

    Raises:
        StudyError: the credentials cannot be read or are malformed.
        RetryableError: the login could not be renewed.
    """
    found = find_credentials()
    for secret in (found.token, found.username, found.key):
        if secret and not re.fullmatch(r"[!-~]+", secret):
            raise StudyError(
                "kaggle: the token contains invalid characters (spaces, line ends); "
                f"{HOW_TO_SIGN_IN}"
            )
    login = Path("~/.kaggle/credentials.json").expanduser()
    if not found and login.exists():
        warn_if_others_can_read(login)
        if saved := KaggleCredentials.load(connect(found)):
            token = call_kaggle(
                saved.get_access_token, "the login of `kaggle auth login`", signed_in=True
            )
            return Credentials(token=token)
    return found


def find_credentials() -> Credentials:
    """Return the credentials of the user, searched for in the order of Kaggle's client:

    KAGGLE_API_TOKEN, ~/.kaggle/access_token, KAGGLE_USERNAME with KAGGLE_KEY, kaggle.json
    in KAGGLE_CONFIG_DIR, ~/.kaggle or ~/.config/kaggle.
    """
    home = Path("~/.kaggle").expanduser()
    try:
        token, _ = get_access_token_from_env()
    except OSError as error:  # the client mistakes a long token for a path
        token = os.environ["KAGGLE_API_TOKEN"] if error.errno == errno.ENAMETOOLONG else None
    if token:
        if not os.environ.get("KAGGLE_API_TOKEN"):
            warn_if_others_can_read(home / "access_token")
        return Credentials(token=token)
    username, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if username and key:
        return Credentials(username=username, key=key)
    return read_kaggle_json(kaggle_json())


def read_kaggle_json(path: Path) -> Credentials:
    """Return the user name and key of a kaggle.json, or no credentials if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Credentials(username=str(content["username"]), key=str(content["key"]))
    except FileNotFoundError:
        return Credentials()
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(
            f"{path}: cannot be read, or is not JSON with username and key; {HOW_TO_SIGN_IN}"
        ) from None
    warn_if_others_can_read(path)
    return found


@functools.cache  # once in a run
def warn_if_others_can_read(path: Path) -> None:
    """Print a warning if other users can read the token: they may have copied it."""
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o077:
            print(
                f"warning: {path} holds your Kaggle token and other users can read it: chmod 600 "
                f"{path}",
                file=sys.stderr,
                flush=True,
            )


def connect(credentials: Credentials) -> Any:  # a KaggleClient: kagglesdk has no types
    """Return a client of Kaggle that has timeouts and does not follow the link to the zip."""
    client = KaggleClient(
        get_env(),
        verbose=False,
        username=credentials.username,
        password=credentials.key,
        api_token=credentials.token,
        user_agent="hemotune",
    )
    # The client has no timeouts and no option for its session, which it creates on entering.
    session: requests.Session = client.http_client().__enter__()._session
    send = session.send

    def send_once(request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        response = send(request, timeout=timeout(), allow_redirects=False, **settings)
        if response.is_redirect:  # the client would parse its empty body as JSON
            response.headers.pop("Content-Type", None)
        return response

    session.send = send_once  # type: ignore[method-assign]  # no public way to give it a timeout
    return client


def call_kaggle(call: Callable[[], Any], what: str, signed_in: bool) -> Any:  # untyped answers
    """Return the answer of `call`, a request by Kaggle's client.

    Errors never include the text of the client's errors, which may contain a token or a signed
    link.

    Raises:
        StudyError: another attempt would fail too.
        RetryableError: another attempt may succeed.
    """
    try:
        return call()
    except requests.HTTPError as error:
        response, status = error.response, error.response.status_code
        # Kaggle may answer 200 with an error's code in its JSON.
        status = status if status >= 400 else response.json()["code"]
        raise error_of_status(status, response, what, signed_in) from None
    except (ValueError, TypeError, AttributeError):  # not JSON, or not what the client expects
        raise StudyError(f"kaggle: {what}: {WEB_PAGE}") from None
    except requests.RequestException as error:
        raise RetryableError(describe_failure(error)) from None


def describe_failure(error: requests.RequestException) -> str:
    """Return the kind of a failed request; its own text may contain the signed link."""
    if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
        return f"stalled: no data for {timeout()[1]:g} s"
    return f"no connection, or connection lost ({type(error).__name__})"


def error_of_status(
    status: int, response: requests.Response, what: str, signed_in: bool
) -> StudyError | RetryableError:
    """Return the exception for an HTTP status of Kaggle or of its storage."""
    if status == 429:
        return RetryableError("too many requests (429)", retry_after(response))
    if status == 408 or status >= 500:
        return RetryableError(f"server error ({status})", retry_after(response))
    texts = {
        401: f"the token was refused (401): it is wrong or expired; {HOW_TO_SIGN_IN}",
        403: (
            "not allowed (403): it is private, or you must accept its rules; open its page on "
            "kaggle.com with the token's account"
        ),
        404: (
            "there is no such data set or version (404); correct dataset.handle or "
            "dataset.version in the profile"
        ),
        407: "the proxy needs a password (407); set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    }
    text = texts.get(status, f"unexpected response ({status})")
    if not signed_in and status in (401, 403):
        text = f"it is not public and no token was found ({status}); {HOW_TO_SIGN_IN}"
    return StudyError(f"kaggle: {what}: {text}")


def retry_after(response: requests.Response) -> float | None:
    """Return the seconds in a Retry-After header (a number or a date), or None."""
    with contextlib.suppress(InvalidHeader):
        return Retry().get_retry_after(response.raw)
    return None


def current_version(handle: str) -> Version:
    """Return the current version of the data set OWNER/NAME; raises as `call_kaggle`."""
    found = send(ApiGetDatasetRequest(), "get_dataset", handle, handle)
    if not found.current_version_number:
        raise StudyError(
            f"kaggle: {handle}: the response has no current version; set dataset.version to a "
            "number in the profile"
        )
    return Version(
        number=found.current_version_number,
        updated=found.last_updated.isoformat() if found.last_updated else "",
        asked=datetime.now(UTC),
    )


def request_zip(handle: str, version: int) -> requests.Response:
    """Return the answer whose Location header is the signed link to the zip of a version; raises
    as `call_kaggle`.
    """
    request = ApiDownloadDatasetRequest()
    request.dataset_version_number = version
    answer: requests.Response = send(
        request, "download_dataset", handle, f"{handle} version {version}"
    )
    return answer


def send(request: Any, method: str, handle: str, what: str) -> Any:  # kagglesdk has no types
    """Sign in, and return the answer to a request about a data set; raises as `call_kaggle`.

    Args:
        method: of Kaggle's client, to which the request belongs.
        what: what is requested, for messages.
    """
    request.owner_slug, request.dataset_slug = handle.split("/")
    credentials = sign_in()
    call = getattr(connect(credentials).datasets.dataset_api_client, method)
    return call_kaggle(lambda: call(request), what, bool(credentials))


def seconds(variable: str, default: float) -> float:
    """Return a positive number of seconds from an environment variable.

    Raises:
        StudyError: it is set to anything else.
    """
    text = os.environ.get(variable)
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text or default)) < math.inf:
            return value
    raise StudyError(f"{variable}: {text!r} is not a number of seconds above 0")


def timeout() -> tuple[float, float]:
    """Return the seconds to wait for a connection, and for the next byte."""
    stall = seconds("HEMOTUNE_TIMEOUT", 60)
    return min(stall, 20), stall
