"""Writes the pictures of the local page in docs/.

    PYTHONPATH=.:tests python docs/make_page_pictures.py FOLDER

needs Debian's chromium, and a folder with the weights of YuNet and the face mesh. The tape is made
of free pictures by NASA that scikit-image contains.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from helpers.page_in_browser import PHONE, chromium
from helpers.served_page import served
from skimage import data

DOCS = Path(__file__).parent
RATE, WIDTH, HEIGHT = 25, 960, 540
NAME = "Launch day 1995.mp4"
LONG_MS = 900_000
QUALITY = 82
IS_AT_REST = """
() => [...document.querySelectorAll("#before[src], #after[src]")]
  .every((video) => !video.seeking && video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA)
"""


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        videos = Path(folder, "home", "Videos")
        (videos / "1994 Lake").mkdir(parents=True)
        write_tape(videos / NAME)
        for name in ("Launch day 1995, second tape.mp4", "Parade 1995.mp4"):
            shutil.copy(videos / NAME, videos / name)
        with served(Path(folder), "--weights", sys.argv[1], is_real=True) as page:
            take(browser, page)


def take(browser: Any, page: Any) -> None:
    """Drive the page from the choice of a video to its result, and take pictures on the way."""
    tab = browser.open(page, (1440, 900))
    tab.get_by_role("button", name="Choose on this computer").click()
    dialog = tab.get_by_role("dialog", name="Choose videos on this computer")
    dialog.get_by_role("button", name="Videos", exact=True).click()
    dialog.get_by_role("button", name=re.compile(f"^{NAME}")).click()
    dialog.get_by_role("button", name=re.compile("^Parade")).hover()
    shoot(tab, "guide/page-folders.webp")
    dialog.get_by_role("button", name="Open", exact=True).click()
    tab.get_by_label("Name of person 1").wait_for(timeout=LONG_MS)
    tab.get_by_label("Name of person 1").fill("Eileen")
    tab.get_by_label("Name of person 1").press("Enter")
    tab.locator("#bar-estimate", has_text="about").wait_for(timeout=LONG_MS)
    tab.locator("#stage").focus()
    for _ in range(2):
        tab.keyboard.press("Shift+ArrowRight")
    tab.get_by_role("button", name=re.compile("^Show this moment")).click()
    tab.locator("#loop-pause").wait_for(timeout=LONG_MS)
    tab.mouse.move(5, 5)
    tab.set_viewport_size({"width": 1440, "height": 1240})
    tab.emulate_media(color_scheme="dark")
    tab.evaluate("scrollTo(0, 0)")
    shoot(tab, "guide/page-dark.webp")
    tab.emulate_media(color_scheme="light")

    tab.get_by_role("button", name="Restore", exact=True).click()
    job = tab.locator(".job").first
    job.get_by_role("img", name="The newest picture").wait_for(timeout=LONG_MS)
    tab.wait_for_timeout(8000)
    tab.set_viewport_size({"width": 1440, "height": 900})
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    shoot(tab, "guide/page-running.webp", tab.locator("#queue"))
    job.get_by_text("Done", exact=True).wait_for(timeout=LONG_MS)
    job.get_by_role("button", name=re.compile("^Compare")).click()
    tab.set_viewport_size({"width": 1440, "height": 1240})
    tab.keyboard.press("Home")
    for _ in range(7):
        tab.keyboard.press("Shift+ArrowRight")
    tab.mouse.move(5, 5)
    tab.evaluate("scrollTo(0, 0)")
    shoot(tab, "page.webp")

    phone = browser.open(page, PHONE, device_scale_factor=2)
    phone.locator(".player-modes").scroll_into_view_if_needed()
    phone.evaluate("document.getElementById('player').scrollIntoView()")
    shoot(phone, "guide/page-phone.webp")


def shoot(tab: Any, name: str, part: Any = None) -> None:
    """Take a picture of the window or of a part of it."""
    tab.wait_for_timeout(1500)
    while not tab.evaluate(IS_AT_REST):  # the page's policy forbids Playwright's own wait
        tab.wait_for_timeout(100)
    taken = np.frombuffer((part or tab).screenshot(type="png"), np.uint8)
    picture = cv2.imdecode(taken, cv2.IMREAD_COLOR)
    cv2.imwrite(str(DOCS / name), picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    print(DOCS / name, (DOCS / name).stat().st_size, file=sys.stderr)


def shots() -> Iterator[tuple[np.ndarray[Any, Any], tuple[float, float], float]]:
    """Yield for each frame the picture, the place in its middle, and its magnification."""
    portrait, rocket = data.astronaut(), data.rocket()
    for number in range(100):
        yield portrait, (225 + 0.2 * number, 150.0), 1.9 + 0.002 * number
    for number in range(50):
        yield rocket, (320, 215 - 0.6 * number), 1.7
    for number in range(90):
        yield portrait[:, ::-1].copy(), (285 - 0.15 * number, 125.0), 2.4 - 0.002 * number


def write_tape(path: Path) -> None:
    """Write a video that looks like a tape: soft, with noise, and with a quiet tone."""
    noise = np.random.default_rng(7)
    hertz = 48000
    count = 0
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=RATE, options={"crf": "19", "g": "25"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = target.add_stream("aac", rate=hertz, layout="mono")
        for count, (picture, (x, y), zoom) in enumerate(shots(), 1):
            sway = 3 * np.sin(count / 9)
            matrix = np.array(
                [[zoom, 0, WIDTH / 2 - zoom * x + sway], [0, zoom, HEIGHT * 0.42 - zoom * y]]
            )
            frame = cv2.warpAffine(
                picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT_101,
            )  # fmt: skip
            soft = cv2.GaussianBlur(frame, (0, 0), 1.6).astype(np.float32)
            grain = cv2.GaussianBlur(
                noise.normal(0, 26, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 0.8
            )
            tape = np.clip(soft * 0.88 + 12 + grain, 0, 255).astype(np.uint8)
            target.mux(video.encode(av.VideoFrame.from_ndarray(tape, "rgb24")))
        target.mux(video.encode(None))
        times = np.arange(count * hertz // RATE) / hertz
        tone = (0.05 * np.sin(2 * np.pi * 220 * times)).astype(np.float32)[np.newaxis]
        sound = av.AudioFrame.from_ndarray(tone, "fltp", layout="mono")
        sound.sample_rate = hertz
        target.mux(audio.encode(sound))
        target.mux(audio.encode(None))


if __name__ == "__main__":
    main()
