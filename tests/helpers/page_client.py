"""What talks to a page that is served, as a browser does or as an attacker would."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from helpers.served_page import Served

SECONDS = 60


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Sends what it likes; with a cookie once it has logged in."""

    page: Served
    cookie: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.page.address).netloc

    def ask(self, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Answer:
        """An address is sent as it is: no client makes it shorter or nicer on its way."""
        where = urlsplit(self.page.address)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=SECONDS)
        own = {"Cookie": self.cookie} if self.cookie else {}
        own |= {name.replace("_", "-"): text for name, text in headers.items()}
        try:
            connection.putrequest(
                method or ("GET" if body is None else "POST"),
                path,
                skip_host="Host" in own,
                skip_accept_encoding=True,
            )
            for name, text in own.items():
                connection.putheader(name, text)
            if body is not None and "Content-Length" not in own:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.headers.items()}, got.read())
        finally:
            connection.close()

    def log_in(self) -> "Client":
        got = self.ask(f"/?{urlsplit(self.page.entry).query}")
        self.cookie = got.headers.get("set-cookie", "").partition(";")[0] or self.cookie
        return self

    def post(self, path: str, fields: Any = None, **headers: str) -> Answer:
        """As the page does."""
        body = json.dumps({} if fields is None else fields).encode()
        return self.send(path, body, **headers)

    def send(self, path: str, body: bytes, **headers: str) -> Answer:
        usual = {"Content_Type": "application/json", "Origin": self.page.address}
        return self.ask(path, body, **usual | headers)

    def delete(self, path: str, **headers: str) -> Answer:
        return self.ask(path, method="DELETE", **{"Origin": self.page.address} | headers)

    def upload(self, name: str, content: bytes = b"no video", **headers: str) -> Answer:
        path = f"/api/videos?name={quote(name, safe='')}"
        return self.send(path, content, Content_Type="application/octet-stream", **headers)

    def opened(self, name: str = "tape.mp4", content: bytes = b"no video") -> str:
        """The id of a video that was sent."""
        got = self.upload(name, content)
        assert got.status == 200, got.body
        return str(got.fields["video"])

    def state(self) -> Any:
        got = self.ask("/api/state")
        assert got.status == 200, got.body
        return got.fields

    def video(self, video_id: str) -> Any:
        return next(each for each in self.state()["videos"] if each["id"] == video_id)

    def restoration(self, restoration_id: str) -> Any:
        found = self.state()["restorations"]
        return next((each for each in found if each["id"] == restoration_id), None)

    def analyzed(self, video_id: str) -> Any:
        """The video once its faces are found."""
        return self.until(lambda: self.video(video_id), lambda v: v["analysis"]["state"] == "done")

    def ordered(self, video_id: str, **fields: Any) -> str:
        """The id of a restoration."""
        got = self.post(f"/api/videos/{video_id}/restore", fields)
        assert got.status == 200, got.body
        return str(got.fields["restoration"])

    def over(self, restoration_id: str, state: str = "done") -> Any:
        return self.until(lambda: self.restoration(restoration_id), lambda r: r["state"] == state)

    def until(self, get: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + SECONDS
        while True:
            got = get()
            if is_so(got):
                return got
            assert time.monotonic() < deadline, got
            time.sleep(0.02)
