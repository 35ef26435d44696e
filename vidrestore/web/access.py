"""Access control: which requests reach the page, and whose they are.

Every user of this machine can connect to the page's port, and every site that the user visits can
send requests to it through the browser. So the address that the user gets contains a secret token.
The first request exchanges the token for a cookie, and all other requests need that cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from vidrestore.common.handled import log_handled
from vidrestore.web.library import LOCAL_OWNER, Visitor
from vidrestore.web.service import Service

LOCAL = ("127.0.0.1", "localhost", "::1")
"""The addresses that only this machine can reach."""
MOST_VISITORS = 100
"""The largest number of browsers that are kept."""
OWNER = "vidrestore.owner"
"""The key of the visitor in the scope of a request."""
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; media-src data:; font-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""The policy of a report: its scripts run, but as a page of no site, without any connection."""

_COOKIE_SECONDS = 30 * 24 * 3600
_LONGEST_BODY = 2**16  # bytes of a request with choices; videos use another route
_UPLOAD = "/api/videos"
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-src 'self'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_NO_TOKEN = (
    "To open the page, use the whole address that the terminal shows, with the token in it; copy "
    "the address from there."
)
_NOT_FROM_HERE = (
    "This request came from another site, or used another name of this computer, so vidrestore "
    "refused it; open the page with the address that the terminal shows."
)
_TOO_LONG = "This request is longer than the page ever sends; load the page again."
_NOT_JSON = "The page sends no such request; load the page again."
_TOO_MANY = (
    "The page is open in too many browsers, and all are in use; close some, then load the page "
    "again."
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Access:
    """An ASGI application that passes on only requests of the page, by visitors that it knows.

    Args:
        app: The application that it protects.
        service: What the page does; it forgets visitors.
        port: The port of the page. It is part of the cookie's name, because for cookies a browser
            treats all ports of a machine as one site.
    """

    def __init__(self, app: App, service: Service, *, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        """The secret token, which the first request of a browser must bring."""
        self._app = app
        self._service = service
        self._visitors = service.library.visitors
        for cookie in [*self._visitors]:  # those that no browser sends any more
            if time.time() - self._visitors[cookie].used_seconds > _COOKIE_SECONDS:
                del self._visitors[cookie]
        self._cookie = f"vidrestore-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request, or pass it on; see the class."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, _with_headers(send))
        else:  # the page uses no websockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"])
        is_exchange = self._brings_token(scope)
        if scope["method"] not in _METHODS:
            await _refuse(send, scope, 405, _NOT_JSON)
            return
        if not self._is_from_here(scope["method"], headers, is_exchange=is_exchange):
            await _refuse(send, scope, 403, _NOT_FROM_HERE)
            return
        owner, value = self._owner(headers)
        if is_exchange:
            await self._set_cookie(send, scope, owner, headers)
        elif owner is None:
            await _refuse(send, scope, 403, _NO_TOKEN)
        else:
            if scope["path"] == "/":  # each visit counts, so no browser in use loses its visitor
                send = _with_cookie(send, self._cookie_header(value))
            await self._pass_on({**scope, OWNER: owner}, receive, send, headers)

    def _is_from_here(self, method: str, headers: _Headers, *, is_exchange: bool) -> bool:
        """Whether a request comes from the page, by a proper name of this machine."""
        host, origin = headers.only("host"), headers.only("origin")
        site = headers.only("sec-fetch-site")
        if host is None or origin is None or site is None:
            return False  # a header is given twice, and another reader might choose the other one
        # Refuse other names: a foreign site can make its name resolve to this machine.
        name = re.sub(r":\d{1,5}$", "", host).removeprefix("[").removesuffix("]")
        if not host or (self._service.is_local and name not in LOCAL):
            return False
        schemes = ("http",) if self._service.is_local else ("http", "https")
        own = [f"{scheme}://{host}" for scheme in schemes]
        if origin not in own and (origin or method not in ("GET", "HEAD")):
            return False
        # A browser calls a file of this machine, which redirects to the page, another site.
        came_by_file = is_exchange and headers.only("sec-fetch-mode") == "navigate"
        return site in ("", "none", "same-origin") or (site == "cross-site" and came_by_file)

    def _brings_token(self, scope: Scope) -> bool:
        if scope["method"] != "GET" or scope["path"] != "/":
            return False
        try:
            given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
        except ValueError as error:
            log_handled(error)
            return False
        return any(
            hmac.compare_digest(each.encode(errors="replace"), self.token.encode())
            for each in given.get("token", ())
        )

    def _owner(self, headers: _Headers) -> tuple[str | None, str]:
        """Return the visitor of a request, and its cookie; (None, "") without a valid cookie.

        Each cookie is read by itself. Browsers send the cookies of all programs on this machine,
        which may be malformed or have the same name.
        """
        for each in ";".join(headers.all("cookie")).split(";"):
            name, _, value = each.strip(" \t").partition("=")
            visitor = self._visitors.get(_hash(value)) if name == self._cookie else None
            now = time.time()
            if visitor is None or now - visitor.used_seconds > _COOKIE_SECONDS:
                continue
            if (visitor.owner == LOCAL_OWNER) == self._service.is_local:
                visitor.used_seconds = now
                return visitor.owner, value
        return None, ""

    def _cookie_header(self, value: str) -> tuple[bytes, bytes]:
        """Return the header that stores a cookie for the next month."""
        cookie = (
            f"{self._cookie}={value}; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
        )
        return b"set-cookie", cookie.encode()

    def _has_room(self) -> bool:
        """Make room for one more browser, by forgetting an idle one if needed.

        The one that was idle for the longest time is forgotten. Of visitors, one without videos is
        forgotten first. False if all are busy.
        """
        if len(self._visitors) < MOST_VISITORS:
            return True
        service = self._service

        def order(cookie: str) -> tuple[bool, float]:
            visitor = self._visitors[cookie]
            holds = not service.is_local and bool(
                service.library.videos_of(visitor.owner)
                or service.library.restorations_of(visitor.owner)
            )
            return holds, visitor.used_seconds

        for cookie in sorted(self._visitors, key=order):
            owner = self._visitors[cookie].owner
            if owner == LOCAL_OWNER:
                del self._visitors[cookie]
                return True
            if not service.is_busy(owner):
                del self._visitors[cookie]
                service.forget_visitor(owner)
                return True
        return False

    async def _set_cookie(
        self, send: Send, scope: Scope, owner: str | None, headers: _Headers
    ) -> None:
        """Send the browser to the address without the token, with a cookie instead of it."""
        more = []
        if owner is None:
            if not self._has_room():
                await _refuse(send, scope, 429, _TOO_MANY)
                return
            value = secrets.token_urlsafe(32)
            owner = LOCAL_OWNER if self._service.is_local else secrets.token_hex(16)
            self._visitors[_hash(value)] = Visitor(owner=owner, used_seconds=time.time())
            self._service.library.changed()
            more = [self._cookie_header(value)]
        more.append((b"cache-control", b"no-store"))
        if headers.only("sec-fetch-site") == "cross-site":
            # After a redirect from another site the browser would not send the cookie. A page that
            # reloads itself makes a request that does.
            redirect = '<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
            await _answer(send, 200, redirect, kind="text/html", more=more)
        else:
            await _answer(send, 303, "", more=[*more, (b"location", b"/")])

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, headers: _Headers) -> None:
        """Pass on a request; a body must be JSON and short, but for an upload."""
        kind = (headers.only("content-type") or "").partition(";")[0].strip().lower()
        if scope["method"] == "POST":
            is_upload = scope["path"] == _UPLOAD
            if kind != ("application/octet-stream" if is_upload else "application/json"):
                await _refuse(send, scope, 415, _NOT_JSON)
                return
            if not is_upload:
                body = await _body(receive)
                if body is None:
                    await _refuse(send, scope, 413, _TOO_LONG)
                    return
                receive = _replay(body, receive)
        await self._app(scope, receive, send)


class _Headers:
    """The headers of a request; a browser sends each of those that are checked here once."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = [(name.lower().decode("latin-1"), text.decode("latin-1")) for name, text in raw]

    def all(self, name: str) -> list[str]:
        """Return the texts of all headers with a name."""
        return [text for own, text in self._raw if own == name]

    def only(self, name: str) -> str | None:
        """Return the text of a header: empty if it is missing, None if it is given twice."""
        texts = self.all(name)
        return None if len(texts) > 1 else "".join(texts)


def _hash(value: str) -> str:
    """Return what is kept of a cookie; it is of no use to whoever reads it."""
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too long or incomplete."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > _LONGEST_BODY:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that gives a body that was already read, and then later messages."""
    left = [body]

    async def replayed() -> MutableMapping[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replayed


def _with_headers(send: Send) -> Send:
    """Return a sender that adds the security headers to every answer."""

    async def send_with_headers(message: Scope) -> None:
        if message["type"] == "http.response.start":
            own = [*_HEADERS]
            given = [(name.lower(), text) for name, text in message.get("headers", ())]
            if all(name != b"content-security-policy" for name, _ in given):
                own.append((b"content-security-policy", _POLICY.encode()))
            if all(name != b"cache-control" for name, _ in given):
                own.append((b"cache-control", b"no-store"))
            message["headers"] = [*given, *own]
        await send(message)

    return send_with_headers


def _with_cookie(send: Send, header: tuple[bytes, bytes]) -> Send:
    """Return a sender that stores a cookie with an answer."""

    async def send_with_cookie(message: Scope) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), header]
        await send(message)

    return send_with_cookie


async def _refuse(send: Send, scope: Scope, status: int, text: str) -> None:
    """Refuse a request: with JSON, but where a person sees the answer as a page."""
    if scope["path"] == "/":
        await _answer(send, status, text)
    else:
        await _answer(send, status, json.dumps({"error": text}), kind="application/json")


async def _answer(
    send: Send,
    status: int,
    text: str,
    *,
    kind: str = "text/plain",
    more: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    body = text.encode()
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def owner_of(scope: Mapping[str, Any]) -> str:
    """Return the visitor who sent a request that `Access` passed on.

    Args:
        scope: The scope of the request.

    Returns:
        The visitor.
    """
    return str(scope[OWNER])
