"""HTTP as downloads need it: http and https alone, and which failures may pass by themselves."""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..cache.errors import CbmfError

BLOCK_BYTES = 256 * 1024
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_HEAD = frozenset({403, 405, 501})
"""What servers say that answer GET but not HEAD."""
_AGENT = "cbmf (https://arxiv.org/abs/2403.04650)"


class DownloadError(CbmfError, OSError):
    """A file could not be fetched, or is not the one that was expected."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    tries: int = 6
    """Connections in a row that bring nothing new before it is given up."""
    first_wait_s: float = 1.0
    """Before the second of them; doubled each time."""
    longest_wait_s: float = 60.0
    timeout_s: float = 30.0
    """Without a byte, before a connection counts as broken."""


class Again(Exception):
    """This connection failed; another one may not, after `wait_s` if the server says so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, never from https to http; HEAD stays HEAD."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """See the base class."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise DownloadError(f"{req.full_url}: leads to {newurl}, which is not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.method = req.get_method()
        return request


def _opener() -> urllib.request.OpenerDirector:
    """One that knows http and https alone: no file:, ftp: or data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def connect(
    url: str, headers: dict[str, str], patience: Patience, method: str = "GET"
) -> http.client.HTTPResponse:
    """A response that is not an error.

    Raises:
        Again: If it failed in a way that may pass.
        HTTPError: 416, where `headers` ask for a range.
        DownloadError: If there is no such file or no such server.
    """
    try:
        request = urllib.request.Request(
            url, headers={"User-Agent": _AGENT, **headers}, method=method
        )
        response: http.client.HTTPResponse = _opener().open(request, timeout=patience.timeout_s)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and headers:
            raise
        if error.code in _TRANSIENT or (method == "HEAD" and error.code in _NO_HEAD):
            raise Again(f"the server says {error.code}", _retry_after(error)) from error
        raise DownloadError(f"{url}: the server says {error.code} {error.reason}") from error
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError | ValueError | str):
            raise DownloadError(f"{url}: cannot be fetched ({_reason(cause)})") from error
        raise Again(f"no connection ({_reason(cause)})") from error


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks to wait."""
    text = (error.headers.get("Retry-After") or "").strip() if error.headers else ""
    if text.isdigit():
        return float(text)
    with suppress(TypeError, ValueError):
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    return None


def remote_size(url: str, patience: Patience | None = None) -> int | None:
    """Bytes that a server declares for a file; None if it does not say, or not now.

    Raises:
        DownloadError: If there is no such file or no such server.
    """
    try:
        with connect(url, {}, patience or Patience(tries=1), method="HEAD") as response:
            return declared_bytes(response)
    except Again:
        return None


def validator(response: http.client.HTTPResponse) -> str:
    """What tells one version of a file from another: a strong ETag, else the time of change."""
    tag = response.headers.get("ETag") or ""
    return tag if tag.startswith('"') else response.headers.get("Last-Modified") or ""


def declared_bytes(response: http.client.HTTPResponse) -> int | None:
    """The length of the body, None if the server does not say."""
    text = response.headers.get("Content-Length") or ""
    return int(text) if text.isdigit() else None


def blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes. `Again` if the connection breaks."""
    while True:
        try:
            block = response.read1(BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Again(f"the connection broke ({_reason(error)})") from error
        if not block:
            return
        yield block
