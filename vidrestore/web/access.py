"""Access control: which requests reach the page, and whose they are.

Every user of this machine can connect to the page's port, and every site that the user visits can
send requests to it through the browser. So the address that the user gets contains a secret token.
The first request exchanges the token for a cookie, and all other requests need that cookie. Each
browser that brings the token is a visitor, who sees only its own uploads and jobs.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlencode

from vidrestore.common.handled import log_handled
from vidrestore.web.session import Session
from vidrestore.web.tabs import Tab

LOCAL = ("127.0.0.1", "localhost", "::1")
"""The addresses that only this machine can reach."""
MOST_VISITORS = 100
"""The largest number of visitors that are kept."""
VISITOR = "vidrestore.visitor"
"""The key of the visitor in the scope of a request."""

_COOKIE_SECONDS = 30 * 24 * 3600  # a browser that is closed and opened again still sees its list
_LONGEST_BODY = 2**20  # bytes of a request with choices; videos use another route
_DEEPEST = 32
_FILE = {"_type": "gradio.FileData"}
# 'unsafe-inline' and 'unsafe-eval': gradio has its scripts in the page and compiles templates.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_NEEDED = {
    "GET": re.compile(
        r"/|/config/?|/theme\.css|/favicon\.ico|/(assets|static|svelte)/.+"
        r"|/gradio_api/(theme\.css|startup-events|info|upload_progress|queue/data"
        r"|heartbeat/[^/]+|file=.+)"
        r"|/person/\d{1,9}/\d{1,9}\.png|/result/\d{1,9}"
    ),
    "POST": re.compile(r"/gradio_api/(queue/join|run/predict/?|upload)"),
}
"""The addresses that the page itself requests; all other routes of the framework are closed.

The route that cancels an event is closed too, because the framework does not check its owner.
"""
_UPLOADING = ("/gradio_api/upload", "/gradio_api/upload_progress")
_NO_TOKEN = (
    "To open the page, use the whole address that the terminal shows, with the token in it; copy "
    "the address from there."
)
_NOT_FROM_HERE = (
    "This request came from another site, or used another name of this computer, so vidrestore "
    "refused it; open the page with the address that the terminal shows."
)
_NOT_THE_PAGES = (
    "The page does not send such a request, or the request names a video that was not uploaded in "
    "this browser; load the page again and choose the video again."
)
_TOO_MANY = (
    "The page is open in too many browsers or tabs, and all are in use; close some, then load the "
    "page again."
)
_NOTHING = "There is nothing at this address that you may see; load the page again from its start."

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Access:
    """An ASGI application that passes on only requests of the page, by visitors that it knows.

    Args:
        app: The application that it protects.
        session: The uploads and tabs that requests may name.
        port: The port of the page. It is part of the cookie's name, because for cookies a browser
            treats all ports of a machine as one site.
        is_local: Whether only this machine may reach the page, by one of the names in `LOCAL`.
    """

    def __init__(self, app: App, session: Session, *, port: int, is_local: bool) -> None:
        self.token = secrets.token_urlsafe(32)
        """The secret token, which the first request of a browser must bring."""
        self._app = app
        self._session = session
        self._is_local = is_local
        self._cookie = f"vidrestore-{port}"
        self._visitors: dict[str, str] = {}
        """Visitors by the value of their cookie, in the order of their last request."""

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
        if not self._is_from_here(headers, is_exchange=is_exchange):
            await _answer(send, 403, _NOT_FROM_HERE)
            return
        visitor = self._visitor(headers)
        if is_exchange:
            await self._set_cookie(send, visitor, headers)
        elif visitor is None:
            await _answer(send, 403, _NO_TOKEN)
        elif not _is_needed(scope):
            await _answer(send, 404, _NOTHING)
        else:
            await self._pass_on(scope, receive, send, visitor)

    def _is_from_here(self, headers: _Headers, *, is_exchange: bool) -> bool:
        """Whether a request comes from the page, by a proper name of this machine."""
        host, origin = headers.only("host"), headers.only("origin")
        site = headers.only("sec-fetch-site")
        if host is None or origin is None or site is None:
            return False  # a header is given twice, and another reader might choose the other one
        # Refuse other names: a foreign site can make its name resolve to this machine.
        name = re.sub(r":\d{1,5}$", "", host).removeprefix("[").removesuffix("]")
        if not host or (self._is_local and name not in LOCAL):
            return False
        schemes = ("http",) if self._is_local else ("http", "https")
        if origin and origin not in [f"{scheme}://{host}" for scheme in schemes]:
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
        return any(_same(each, self.token) for each in given.get("token", ()))

    def _visitor(self, headers: _Headers) -> str | None:
        """Return the visitor of a request by its cookie; None without a valid cookie.

        Each cookie is read by itself. Browsers send the cookies of all programs on this machine,
        which may be malformed or have the same name.
        """
        found = None
        for each in ";".join(headers.all("cookie")).split(";"):
            name, _, given = each.strip(" \t").partition("=")
            for value in self._visitors:
                if name == self._cookie and _same(given, value):
                    found = value
        if found is None:
            return None
        visitor = self._visitors[found] = self._visitors.pop(found)
        return visitor

    def _has_room(self) -> bool:
        """Make room for one more visitor, by forgetting an idle one if needed.

        A visitor without jobs and uploads is forgotten first, else the one that was idle for the
        longest time. False if all visitors are busy.
        """
        if len(self._visitors) < MOST_VISITORS:
            return True
        idle = [value for value, who in self._visitors.items() if not self._session.is_busy(who)]
        if not idle:
            return False
        empty = (each for each in idle if not self._session.holds_files_of(self._visitors[each]))
        self._session.forget(self._visitors.pop(next(empty, idle[0])))
        return True

    async def _set_cookie(self, send: Send, visitor: str | None, headers: _Headers) -> None:
        """Send the browser to the address without the token, with a cookie instead of it."""
        more = []
        if visitor is None:
            if not self._has_room():
                await _answer(send, 429, _TOO_MANY)
                return
            value = secrets.token_urlsafe(32)
            self._visitors[value] = secrets.token_hex(16)
            cookie = (
                f"{self._cookie}={value}; Path=/; Max-Age={_COOKIE_SECONDS}; "
                "HttpOnly; SameSite=Strict"
            )
            more = [(b"set-cookie", cookie.encode())]
        more.append((b"cache-control", b"no-store"))
        if headers.only("sec-fetch-site") == "cross-site":
            # After a redirect from another site the browser would not send the cookie. A page that
            # reloads itself makes a request that does.
            redirect = '<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
            await _answer(send, 200, redirect, kind="text/html", more=more)
        else:
            await _answer(send, 303, "", more=[*more, (b"location", b"/")])

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        scope = {**scope, VISITOR: visitor}
        path = scope["path"]
        if path in ("/", "/config", "/config/"):
            scope["query_string"] = b""  # gradio would open a saved state that the address names
        if path in _UPLOADING:
            query = _upload_of(scope, visitor)
            if query is None:
                await _answer(send, 404, _NOTHING)
                return
            scope["query_string"] = query
        named: object = _tab_in_address(scope)
        if scope["method"] == "POST" and path != "/gradio_api/upload":
            body = await _body(receive)
            request = None if body is None else self._cleaned(body, visitor)
            if request is None:
                await _answer(send, 400, _NOT_THE_PAGES)
                return
            named, cleaned = request
            scope["headers"] = [
                *(pair for pair in scope["headers"] if pair[0] not in _OF_BODY),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(cleaned)).encode()),
            ]
            receive = _replay(cleaned, receive)
        if named is None:
            await self._app(scope, receive, send)
            return
        tab = self._tab(named, visitor)
        if tab is None:
            await self._refuse_tab(send, scope, visitor)
            return
        tab.open_requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            tab.open_requests -= 1

    async def _refuse_tab(self, send: Send, scope: Scope, visitor: str) -> None:
        if self._session.tabs.is_full(visitor):
            await _answer(send, 429, _TOO_MANY)
        elif scope["method"] == "POST":
            await _answer(send, 400, _NOT_THE_PAGES)
        else:
            await _answer(send, 404, _NOTHING)

    def _tab(self, named: object, visitor: str) -> Tab | None:
        """Return the tab that a request names; None for an invalid name or another's tab."""
        if not isinstance(named, str) or not re.fullmatch(r"\w{1,64}", named):
            return None
        return self._session.tabs.claim(named, visitor)

    def _cleaned(self, body: bytes, visitor: str) -> tuple[object, bytes] | None:
        """Return the tab that a request names, and the request with the server's own paths.

        The paths replace those that the request names. None if the body is not a request of the
        page, or names a file that the visitor did not upload.
        """
        try:
            request = json.loads(body)
            if not isinstance(request, dict) or request.get("session_hash") is None:
                return None
            cleaned = json.dumps(self._with_own_files(request, visitor, 0)).encode()
        except (ValueError, RecursionError, LookupError) as error:
            log_handled(error)
            return None
        return request["session_hash"], cleaned

    def _with_own_files(self, value: Any, visitor: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if isinstance(value, list):
            return [self._with_own_files(each, visitor, depth + 1) for each in value]
        if not isinstance(value, dict):
            return value
        if not value.keys() & {"path", "meta", "url"}:
            return {
                key: self._with_own_files(each, visitor, depth + 1) for key, each in value.items()
            }
        upload = self._session.uploads.find(str(value.get("path")), visitor)
        if upload is None:
            raise LookupError("not an upload of this visitor")
        return {"path": str(upload.path), "orig_name": upload.path.name, "meta": _FILE}


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


_OF_BODY = (b"content-type", b"content-length", b"transfer-encoding", b"content-encoding")


def _same(given: str, secret: str) -> bool:
    """Compare in a time that does not depend on the number of equal characters."""
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _is_needed(scope: Scope) -> bool:
    path = scope["path"]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    # Only addresses of files contain paths on the disk, and these are only compared.
    is_plain = ".." not in PurePosixPath(path).parts and "\\" not in path and "\0" not in path
    needed = _NEEDED.get(method)
    return is_plain and needed is not None and needed.fullmatch(path) is not None


def _tab_in_address(scope: Scope) -> str | None:
    """Return the tab that a request for a stream of events names; None for other requests."""
    path = str(scope["path"])
    if path.startswith("/gradio_api/heartbeat/"):
        return path.rpartition("/")[2]
    if path != "/gradio_api/queue/data":
        return None
    given = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
    return given[0] if len(given) == 1 else ""


def _upload_of(scope: Scope, visitor: str) -> bytes | None:
    """Return the query of an upload or of its progress, with an id that includes the visitor.

    The browser invents the id, and the framework gives the file name to every client that knows
    the id. None if the id is not valid.
    """
    try:
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    except ValueError as error:
        log_handled(error)
        return None
    ids = given.get("upload_id", [])
    if not ids and scope["path"] == _UPLOADING[0]:
        return b""
    if len(ids) != 1 or not re.fullmatch(r"\w{1,64}", ids[0]):
        return None
    return urlencode({"upload_id": f"{visitor}-{ids[0]}"}).encode()


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
    own_names = {name for name, _ in _HEADERS}

    async def send_with_headers(message: Scope) -> None:
        if message["type"] == "http.response.start":
            given = [
                pair for pair in message.get("headers", ()) if pair[0].lower() not in own_names
            ]
            message["headers"] = [*given, *_HEADERS]
        await send(message)

    return send_with_headers


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


def visitor_of(scope: Mapping[str, Any]) -> str:
    """Return the visitor who sent a request that `Access` passed on.

    Args:
        scope: The scope of the request.

    Returns:
        The visitor.
    """
    return str(scope[VISITOR])
