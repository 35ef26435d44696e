"""What the page does with videos: their commands, names, choices, results, and their end."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import stand_in_command

from vidrestore.models.weights import load_table
from vidrestore.web import server, targets
from vidrestore.web import service as service_of_page
from vidrestore.web import state as state_of_page
from vidrestore.web.choices import Change
from vidrestore.web.commands import Engine
from vidrestore.web.library import LOCAL_OWNER, Library
from vidrestore.web.places import Places
from vidrestore.web.service import Service
from vidrestore.web.wording import RefusedError

ME = LOCAL_OWNER
DAY = 24 * 3600


class Desk:
    """A page without its server, whose commands only pretend to work."""

    def __init__(self, folder: Path, *, is_local: bool = True, offline: bool = False) -> None:
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.steering = folder / "steering"
        self.steering.mkdir(exist_ok=True)
        (folder / "ui").mkdir(exist_ok=True)
        self.library = Library(folder / "ui")
        self.service = Service(
            self.library,
            Places([self.home]),
            engine=Engine(folder / "weights", offline),
            is_local=is_local,
            most_upload_bytes=10**6,
            command=(sys.executable, str(stand_in_command.__file__)),
        )

    def file(self, name: str = "tape.mp4", content: bytes = b"12345") -> Path:
        path = self.home / name
        path.write_bytes(content)
        return path

    def open(self, path: Path | None = None) -> str:
        return self.service.open_path(ME, path or self.file()).id

    def upload(self, owner: str = ME) -> str:
        folder = self.library.make_folder(self.library.uploads)
        (folder / "tape.mp4").write_bytes(b"12345")
        return self.service.open_path(owner, folder / "tape.mp4", folder).id

    def shown(self, item: str, owner: str = ME) -> Any:
        """A video or a restoration, as the page shows it."""
        state = state_of_page.state(self.service, owner)
        items = [*state["videos"], *state["restorations"]]
        return next((each for each in items if each["id"] == item), None)

    async def until(self, is_so: Callable[[], Any]) -> Any:
        async with asyncio.timeout(60):
            while not (got := is_so()):
                await asyncio.sleep(0.01)
        return got

    async def analyzed(self, video: str, owner: str = ME) -> Any:
        await self.until(lambda: self.shown(video, owner)["analysis"]["state"] == "done")
        return self.shown(video, owner)

    async def restored(self, video: str, owner: str = ME, **more: Any) -> str:
        await self.analyzed(video, owner)
        order = self.service.restore(owner, video, overwrite=more.get("overwrite", False)).id
        await self.until(lambda: self.shown(order, owner)["state"] == "done")
        return order

    def commands(self, name: str = "") -> list[list[str]]:
        log = self.steering / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        found = [json.loads(line) for line in lines]
        return [each for each in found if name in ("", each[0])]

    def hold(self, name: str = "hold") -> Path:
        path = self.steering / name
        path.touch()
        return path

    def fail(self, command: str, message: str) -> Path:
        path = self.steering / f"fail-{command}"
        path.write_text(message)
        return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test with a desk at work."""
    monkeypatch.setenv("STAND_IN", str(tmp_path / "steering"))
    monkeypatch.setattr(service_of_page, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(service_of_page, "_SAVE_SECONDS", 0.05)

    async def at_work(test: Callable[[Desk], Awaitable[None]], **more: Any) -> None:
        desk = Desk(tmp_path, **more)
        work = asyncio.create_task(desk.service.work())
        desk.service.seen()
        try:
            async with asyncio.timeout(120):
                await test(desk)
            assert not work.done(), "the page no longer works"
        finally:
            work.cancel()
            await asyncio.wait([work])

    return lambda test, **more: asyncio.run(at_work(test, **more))


def refused(status: int, call: Callable[..., Any], *given: Any, **more: Any) -> str:
    with pytest.raises(RefusedError) as error:
        call(*given, **more)
    assert error.value.status == status
    assert str(error.value).endswith(".")
    return str(error.value)


def test_a_video_is_looked_at_and_its_time_is_estimated(run):
    async def test(desk):
        video = desk.open()
        assert desk.shown(video)["analysis"]["state"] == "waiting"
        assert desk.shown(video)["found"] is None
        shown = await desk.analyzed(video)
        found = shown["found"]
        assert found["sentence"].startswith("2 people were found in 2 shots.")
        assert (found["width"], found["height"], found["cuts_seconds"]) == (320, 240, [0.6])
        assert [each["id"] for each in found["people"]] == [1, 2]
        assert found["people"][0]["appearances"] == [[0.0, 0.5, 15], [0.7, 1.2, 15]]
        assert shown["place_shown"] == str(desk.home)
        await desk.until(lambda: desk.shown(video)["estimate"]["seconds"])
        estimate = desk.shown(video)["estimate"]
        # 15 s for the frames, and a second for each of 45 faces.
        assert (estimate["seconds"], estimate["faces"]) == (60, 45)
        assert estimate["seconds_with_key_frames"] == 30
        first, second = desk.commands("analyze")
        assert "--no-estimate" in first
        assert "--no-estimate" not in second
        assert first[1] == second[1] == str(desk.home / "tape.mp4")

    run(test)


@pytest.mark.parametrize(
    ("change", "faces", "seconds"),
    [
        ({"people": [1]}, 30, 45),
        ({"people": [2]}, 15, 30),
        ({"people": []}, 0, 15),
        ({"least_eye_px": 20.0}, 30, 45),
        ({"start_seconds": 0.6}, 30, 7.5 + 30),
        ({"end_seconds": 0.25}, 8, 15 * 0.25 / 1.2 + 8),
        ({"key_frames": True}, 45, 30),
        ({"end_seconds": 99.0}, 45, 60),
    ],
)
def test_the_estimate_is_for_what_is_chosen(run, change, faces, seconds):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        await desk.until(lambda: desk.shown(video)["estimate"]["seconds"])
        desk.service.choose(ME, video, Change(**change))
        estimate = desk.shown(video)["estimate"]
        assert estimate["faces"] == faces
        assert estimate["seconds"] == pytest.approx(seconds)
        assert len(desk.commands("analyze")) == 2  # what was measured stays

    run(test)


def test_another_restorer_is_measured_once(run):
    async def test(desk):
        for name in ("gpen-512", "gpen-256"):
            weight = desk.service.engine.weights / load_table()[name].file
            weight.parent.mkdir(exist_ok=True)
            weight.touch()
        video = desk.open()
        await desk.analyzed(video)
        for restorer in ("gpen-512", "gpen-256", "gpen-512"):
            await desk.until(
                lambda name=restorer: (
                    not desk.service.missing_for(
                        desk.library.videos[video].choices.model_copy(update={"restorer": name})
                    )
                )
            )
            desk.service.choose(ME, video, Change(restorer=restorer))
            await desk.until(lambda: desk.shown(video)["estimate"]["seconds"])
        used = [each[each.index("--restorer") + 1] for each in desk.commands("analyze")
                if "--restorer" in each]  # fmt: skip
        assert used.count("gpen-512") == used.count("gpen-256") == 1

    run(test)


def test_no_time_is_estimated_without_the_weights(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.service.choose(ME, video, Change(restorer="gpen-512"))
        estimate = desk.shown(video)["estimate"]
        assert estimate["error"] == "The time is known once GPEN 512 is downloaded."
        assert all("gpen-512" not in each for each in desk.commands())

    run(test)


def estimates(desk: Desk) -> int:
    return len([each for each in desk.commands("analyze") if "--restorer" in each])


def test_an_estimate_waits_for_what_a_person_waits_for(run):
    async def test(desk):
        first, second = desk.open(), desk.open(desk.file("b.mp4"))
        await desk.analyzed(first)
        await desk.analyzed(second)
        kinds = ["--restorer" in each for each in desk.commands("analyze")]
        assert kinds[:2] == [False, False]
        await desk.until(lambda: desk.shown(second)["estimate"]["seconds"])
        # One that runs makes room for a moment, and begins anew afterwards.
        count = estimates(desk)
        hold_estimate, hold = desk.hold("hold-estimate"), desk.hold()
        desk.library.videos[first].estimates.clear()
        desk.service.choose(ME, first, Change(strength=0.5))
        await desk.until(lambda: estimates(desk) == count + 1)
        desk.service.show_moment(ME, first, 0.0)
        await desk.until(lambda: desk.shown(first)["moment"]["state"] == "running")
        await desk.until(lambda: desk.shown(first)["estimate"]["state"] == "waiting")
        hold_estimate.unlink()
        hold.unlink()
        await desk.until(lambda: desk.shown(first)["estimate"]["seconds"])
        assert estimates(desk) == count + 2

    run(test)


@pytest.mark.skipif(sys.platform == "win32", reason="shows no state of halting")
def test_a_restoration_waits_while_the_speed_is_measured(run):
    """Else the next one would seem to take twice as long."""

    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        await desk.until(lambda: desk.shown(video)["estimate"]["seconds"])
        hold_estimate, hold = desk.hold("hold-estimate"), desk.hold()
        order = desk.service.restore(ME, video, overwrite=False)
        process = psutil.Process(await desk.until(lambda: order.job.process_id))
        await desk.until(lambda: desk.shown(order.id)["live"])
        desk.library.videos[video].estimates.clear()
        desk.service.choose(ME, video, Change(strength=0.5))
        await desk.until(lambda: process.status() == psutil.STATUS_STOPPED)
        assert desk.shown(order.id)["state"] == "running"
        hold_estimate.unlink()
        await desk.until(lambda: desk.shown(video)["estimate"]["seconds"])
        await desk.until(lambda: process.status() != psutil.STATUS_STOPPED)
        hold.unlink()
        await desk.until(lambda: desk.shown(order.id)["state"] == "done")

    run(test)


def test_a_failure_is_said_and_can_be_tried_again(run):
    async def test(desk):
        reason = desk.fail("analyze", f"the file {desk.home}/tape.mp4 cannot be read as video: x")
        video = desk.open()
        await desk.until(lambda: desk.shown(video)["analysis"]["state"] == "failed")
        said = desk.shown(video)["analysis"]["error"]
        assert said == "There is no video in this file, or it is damaged."
        refused(409, desk.service.restore, ME, video, overwrite=False)
        refused(409, desk.service.show_moment, ME, video, 0.0)
        reason.unlink()
        desk.service.analyze_again(ME, video)
        await desk.analyzed(video)

    run(test)


def test_a_video_without_faces_is_not_restored(run):
    async def test(desk):
        (desk.steering / "nobody").touch()
        video = desk.open()
        shown = await desk.analyzed(video)
        assert shown["found"]["sentence"].startswith("No face was found")
        assert shown["estimate"] is None
        assert shown["thumbnail"] is None
        assert "No face" in refused(409, desk.service.restore, ME, video, overwrite=False)
        assert "No face" in refused(409, desk.service.show_moment, ME, video, 0.0)

    run(test)


def test_the_same_file_is_opened_once(run):
    async def test(desk):
        desk.file()
        (desk.home / "link.mp4").symlink_to(desk.home / "tape.mp4")
        places = desk.service.places
        files = [each.entry.id for each in places.listing(places.roots()[0].id).files]
        opened = {desk.service.open_file(ME, each).id for each in files * 2}
        assert len(opened) == 1
        # One that has changed is another video.
        os.utime(desk.home / "tape.mp4", (1, 1))
        assert desk.service.open_file(ME, files[0]).id not in opened

    run(test)


def test_not_more_videos_than_a_page_can_show(run, monkeypatch):
    monkeypatch.setattr(service_of_page, "MOST_VIDEOS", 1)

    async def test(desk):
        video = desk.open()
        assert "Too many" in refused(409, desk.open, desk.file("b.mp4"))
        desk.service.forget_video(ME, video)
        desk.open(desk.file("b.mp4"))

    run(test)


def test_a_profile_brings_its_choices_and_a_new_analysis(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        before = desk.library.videos[video].choices
        assert (before.profile, before.strength, before.container) == ("home-video", 0.7, ".mp4")
        desk.service.choose(ME, video, Change(people=[1]))
        desk.service.name_person(ME, video, 1, " Anna  Maria ")
        new = desk.service.choose(ME, video, Change(profile="film"))
        assert (new.strength, new.quality, new.container) == (0.5, "archive", ".mkv")
        assert new.people is None
        assert desk.shown(video)["names"] == {}
        assert desk.shown(video)["found"] is None
        await desk.analyzed(video)
        assert "film" in desk.commands("analyze")[-1] or "film" in desk.commands("analyze")[-2]
        # What the user has set stays; what belongs to the people of before comes back.
        desk.service.choose(ME, video, Change(strength=0.9))
        new = desk.service.choose(ME, video, Change(profile="home-video", strength=0.3))
        assert (new.strength, new.quality) == (0.3, "high")
        assert desk.shown(video)["names"] == {"1": "Anna Maria"}
        # Lossless video fits into one container only.
        new = desk.service.choose(ME, video, Change(quality="archive", container=".mp4"))
        assert new.container == ".mkv"

    run(test)


def test_a_name_is_given_and_taken_back(run):
    async def test(desk):
        video = desk.open()
        refused(400, desk.service.name_person, ME, video, 1, "Anna")  # nobody is known yet
        await desk.analyzed(video)
        desk.service.name_person(ME, video, 1, "Anna")
        desk.service.name_person(ME, video, 2, "\u202eTom<b>")
        assert desk.shown(video)["names"] == {"1": "Anna", "2": "\u202eTom<b>"}
        desk.service.name_person(ME, video, 1, " ")
        assert "1" not in desk.shown(video)["names"]
        refused(400, desk.service.name_person, ME, video, 3, "Eve")
        refused(400, desk.service.name_person, ME, video, 1, "x" * 61)

    run(test)


def test_a_moment_is_made_with_the_choices(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.service.choose(ME, video, Change(people=[2], strength=0.25, least_eye_px=5.0))
        desk.service.show_moment(ME, video, 0.5)
        first = desk.library.videos[video].moment
        desk.service.show_moment(ME, video, 12.3456)
        await desk.until(lambda: desk.shown(video)["moment"]["state"] == "done")
        moment = desk.shown(video)["moment"]
        assert moment["at_seconds"] == 12.3456
        assert (moment["faces"], moment["error"]) == (50, None)
        assert moment["before"].startswith(f"/media/loop/{video}/before")
        (command,) = desk.commands("preview")[-1:]
        for option, value in {
            "--at": "12.346", "--people": "2", "--strength": "0.25", "--min-face": "5",
            "--restorer": "fusion", "--profile": "home-video",
        }.items():  # fmt: skip
            assert command[command.index(option) + 1] == value
        assert "--apart" in command
        await desk.until(lambda: not first.folder.exists())

    run(test)


def test_a_picture_gets_pictures(run):
    async def test(desk):
        video = desk.open(desk.file("photo.jpg"))
        shown = await desk.analyzed(video)
        assert shown["is_picture"]
        assert shown["estimate"] is None
        assert shown["target"]["name"] == "photo-clear.png"
        desk.service.show_moment(ME, video, 0.0)
        await desk.until(lambda: desk.shown(video)["moment"]["state"] == "done")
        assert desk.shown(video)["moment"]["faces"] == 45
        (command,) = desk.commands("restore")
        assert command[2].endswith("moment.after.png")
        assert "--strength" in command
        refused(400, desk.service.set_target, ME, video, None, "photo.mp4")
        order = await desk.restored(video)
        assert "--quality" not in desk.commands("restore")[1]
        assert (desk.home / desk.shown(order)["name"]).exists()

    run(test)


def test_a_restoration_is_ordered_with_all_choices(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.service.name_person(ME, video, 1, "Anna")
        desk.service.choose(
            ME, video, Change(people=[1], quality="small", container=".mov", start_seconds=0.25,
                              end_seconds=1.0, key_frames=True, strength=0.5),
        )  # fmt: skip
        hold = desk.hold()
        order = desk.service.restore(ME, video, overwrite=False).id
        desk.service.forget_video(ME, video)  # what was found in it is still used
        hold.unlink()
        await desk.until(lambda: desk.shown(order)["state"] == "done")
        (command,) = desk.commands("restore")
        assert Path(command[command.index("--analysis") + 1]).read_text() == "the analysis"
        assert command[1:3] == [str(desk.home / "tape.mp4"), str(desk.home / "tape-clear.mov")]
        for option, value in {
            "--people": "1", "--quality": "small", "--start": "0.250", "--end": "1.000",
            "--set": "restore.key_frames=auto", "--strength": "0.5",
            "--analysis": str(desk.service.library.restorations[order].job.folder / "analysis.npz"),
        }.items():  # fmt: skip
            assert command[command.index(option) + 1] == value
        assert "--overwrite" not in command
        shown = desk.shown(order)
        assert shown["text"] == "Done: 45 faces restored in 30 frames. 2 faces were left as before."
        assert shown["notes"] == ["The subtitles are lost."]
        assert shown["settings_shown"] == (
            "Home video, gentle, strength 0.5, Anna, from 0:00.2 to 0:01, faster with key frames"
        )
        assert (shown["start_seconds"], shown["seconds"]) == (0.25, 0.75)
        assert shown["bytes"] == 5
        assert shown["report"] == f"/media/report/{order}"
        assert not shown["is_in_library"]
        assert shown["can_show"]

    run(test)


def test_a_new_result_gets_a_name_that_is_free(run):
    async def test(desk):
        video = desk.open()
        await desk.restored(video)
        assert desk.shown(video)["target"]["name"] == "tape-clear-2.mp4"
        hold = desk.hold()
        desk.service.restore(ME, video, overwrite=False)
        assert desk.shown(video)["target"]["name"] == "tape-clear-3.mp4"
        hold.unlink()

    run(test)


def test_a_file_is_replaced_only_after_a_question(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        there = desk.file("there.mp4", b"valuable")
        assert desk.service.set_target(ME, video, None, "there.mp4")
        assert desk.shown(video)["target"]["exists"]
        with pytest.raises(RefusedError) as error:
            desk.service.restore(ME, video, overwrite=False)
        assert (error.value.status, error.value.fields) == (409, {"exists": True})
        assert desk.commands("restore") == []
        assert there.read_bytes() == b"valuable"
        order = await desk.restored(video, overwrite=True)
        assert there.read_bytes() == b"12345"
        assert desk.shown(order)["name"] == "there.mp4"
        assert "--overwrite" in desk.commands("restore")[0]
        assert desk.shown(video)["target"]["name"] == "tape-clear.mp4"  # not the same one again

    run(test)


def test_a_result_that_another_one_replaced_is_not_shown_as_its_own(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.service.set_target(ME, video, None, "there.mp4")
        first = await desk.restored(video)
        desk.service.set_target(ME, video, None, "there.mp4")
        second = await desk.restored(video, overwrite=True)
        assert desk.shown(second)["result"]
        assert desk.shown(first)["result"] is None
        assert desk.shown(first)["text"] == "Done, but another restoration has replaced the file."
        desk.service.remove(ME, second, delete_result=False)
        assert desk.shown(first)["result"] is None

    run(test)


def test_no_result_replaces_a_video_of_the_page_or_another_result(run):
    async def test(desk):
        video, other = desk.open(), desk.open(desk.file("other.mp4"))
        await desk.analyzed(video)
        for name in ("tape.mp4", "other.mp4"):
            desk.service.set_target(ME, video, None, name)
            refused(409, desk.service.restore, ME, video, overwrite=True)
        desk.service.forget_video(ME, other)
        hold = desk.hold()
        desk.service.set_target(ME, video, None, "new.mp4")
        desk.service.restore(ME, video, overwrite=False)
        desk.service.set_target(ME, video, None, "new.mp4")
        assert "Another restoration" in refused(
            409, desk.service.restore, ME, video, overwrite=True
        )
        (desk.home / "folder.mp4").mkdir()
        (desk.home / "link.mp4").symlink_to(desk.home / "absent.mp4")
        for name in ("folder.mp4", "link.mp4"):
            desk.service.set_target(ME, video, None, name)
            refused(409, desk.service.restore, ME, video, overwrite=True)
        hold.unlink()

    run(test)


def test_the_result_goes_to_the_folder_that_was_chosen(run):
    async def test(desk):
        (desk.home / "Results").mkdir()
        places = desk.service.places
        folder = places.listing(places.roots()[0].id).folders[0].id
        video = desk.open()
        await desk.analyzed(video)
        assert not desk.service.set_target(ME, video, folder, "anna.mkv")
        assert desk.library.videos[video].choices.container == ".mkv"
        assert desk.shown(video)["target"]["shown"] == str(desk.home / "Results/anna.mkv")
        desk.service.choose(ME, video, Change(container=".mp4"))
        assert desk.shown(video)["target"]["name"] == "anna.mp4"
        await desk.restored(video)
        assert (desk.home / "Results/anna.mp4").exists()
        # The folder is gone when it is needed.
        (desk.home / "Results/anna.mp4").unlink()
        (desk.home / "Results").rmdir()
        assert "choose another" in refused(409, desk.service.restore, ME, video, overwrite=False)
        refused(404, desk.service.set_target, ME, video, folder, "x.mp4")
        desk.service.set_target(ME, video, None, "")
        await desk.restored(video)

    run(test)


def test_links_on_the_way_to_the_folders_change_nothing(run, tmp_path, monkeypatch):
    """A home, or the folder of videos, may be on another disk."""
    (tmp_path / "disk").mkdir()
    home = tmp_path / "linked home"
    home.symlink_to(tmp_path / "disk")
    (tmp_path / "disk/real videos").mkdir()
    (tmp_path / "disk/Videos").symlink_to(tmp_path / "disk/real videos")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    assert server._made(server.page_folder()) == tmp_path / "disk/data/vidrestore/ui"

    async def test(desk):
        video = desk.upload()
        assert desk.shown(video)["target"]["shown"] == "~/real videos/tape-clear.mp4"
        order = await desk.restored(video)
        assert desk.shown(order)["result"]
        assert desk.shown(order)["place_shown"] == "~/real videos"

    run(test)


def test_the_result_of_an_upload_goes_to_the_videos(run):
    async def test(desk):
        video = desk.upload()
        await desk.restored(video)
        assert [each.name for each in targets.videos_folder().iterdir()] == ["tape-clear.mp4"]
        assert desk.shown(video)["is_upload"]
        assert desk.shown(video)["place_shown"] is None

    run(test)


def test_a_file_that_vanished_or_changed_is_said_and_looked_at_again(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        path = desk.home / "tape.mp4"
        path.rename(desk.home / "moved.mp4")
        for call in (desk.service.restore, desk.service.show_moment, desk.service.make_proxy,
                     desk.service.analyze_again):  # fmt: skip
            more = {"overwrite": False} if call == desk.service.restore else {}
            given = (0.0,) if call == desk.service.show_moment else ()
            assert "no longer there" in refused(409, call, ME, video, *given, **more)
        await desk.until(lambda: not desk.shown(video)["is_there"])
        assert desk.shown(video)["source"] is None
        path.write_bytes(b"another video")
        assert "has changed" in refused(409, desk.service.restore, ME, video, overwrite=False)
        await desk.analyzed(video)
        await desk.until(lambda: desk.shown(video)["source"])
        await desk.restored(video)
        assert (desk.home / "tape-clear.mp4").read_bytes() == b"another video"

    run(test)


def test_a_paused_restoration_whose_video_is_gone_does_not_go_on(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        hold = desk.hold()
        order = desk.service.restore(ME, video, overwrite=False).id
        await desk.until(lambda: desk.shown(order)["live"])
        desk.service.pause(ME, order)
        assert desk.shown(order)["text"] == "Pausing"
        await desk.until(lambda: desk.shown(order)["state"] == "paused")
        assert desk.shown(order)["live"]
        assert desk.shown(order)["thumbnail"]
        hold.unlink()
        (desk.home / "tape.mp4").rename(desk.home / "moved.mp4")
        assert "no longer there" in refused(409, desk.service.resume, ME, order)
        (desk.home / "moved.mp4").rename(desk.home / "tape.mp4")
        desk.service.resume(ME, order)
        await desk.until(lambda: desk.shown(order)["state"] == "done")
        assert desk.shown(order)["live"] is None

    run(test)


def test_a_video_that_changes_while_it_waits_is_not_restored(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        hold = desk.hold()
        first, second = (desk.service.restore(ME, video, overwrite=False).id for _ in range(2))
        await desk.until(lambda: desk.shown(first)["live"])
        (desk.home / "tape.mp4").write_bytes(b"another video")
        hold.unlink()
        await desk.until(lambda: desk.shown(second)["state"] == "failed")
        assert desk.shown(second)["error"] == "The video is no longer there, or it has changed."
        assert not (desk.home / "tape-clear-2.mp4").exists()

    run(test)


def test_what_is_continued_goes_behind_the_others(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        hold = desk.hold()
        orders = [desk.service.restore(ME, video, overwrite=False).id for _ in range(3)]
        desk.service.pause(ME, orders[0])
        await desk.until(lambda: desk.shown(orders[0])["state"] == "paused")
        desk.service.resume(ME, orders[0])
        state = state_of_page.state(desk.service, ME)
        assert [each["id"] for each in state["restorations"]] == [*orders[1:], orders[0]]
        hold.unlink()
        await desk.until(lambda: desk.shown(orders[0])["state"] == "done")

    run(test)


def test_a_failed_restoration_says_why_and_can_be_continued(run):
    async def test(desk):
        reason = desk.fail("restore", f"no space is left in {desk.home}; make room")
        video = desk.open()
        await desk.analyzed(video)
        order = desk.service.restore(ME, video, overwrite=False).id
        await desk.until(lambda: desk.shown(order)["state"] == "failed")
        assert desk.shown(order)["error"] == "The disk is full; make room, then press Continue."
        reason.unlink()
        desk.service.resume(ME, order)
        await desk.until(lambda: desk.shown(order)["state"] == "done")
        assert desk.shown(order)["error"] is None

    run(test)


def test_a_removed_restoration_leaves_nothing_behind(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.hold()
        order = desk.service.restore(ME, video, overwrite=False)
        work = desk.home / "tape-clear.mp4.vidrestore"
        await desk.until(work.is_dir)
        desk.service.remove(ME, order.id, delete_result=False)
        await desk.until(lambda: not work.exists() and not order.job.folder.exists())
        assert desk.shown(order.id) is None
        assert [each.name for each in desk.home.iterdir()] == ["tape.mp4"]

    run(test)


def test_one_that_never_ran_removes_no_work_of_another(run):
    """The command line may have begun to write the same file."""

    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.hold()
        desk.service.restore(ME, video, overwrite=False)
        other = desk.service.restore(ME, video, overwrite=False)
        work = other.target.with_name(f"{other.target.name}.vidrestore")
        work.mkdir()
        desk.service.remove(ME, other.id, delete_result=False)
        assert work.is_dir()

    run(test)


def test_a_result_that_is_gone_is_said(run):
    async def test(desk):
        order = await desk.restored(desk.open())
        (desk.home / "tape-clear.mp4").unlink()
        await desk.until(lambda: desk.shown(order)["result"] is None)
        assert desk.shown(order)["text"] == "Done, but the file is gone."
        assert not desk.shown(order)["can_show"]
        refused(409, desk.service.show, ME, order)
        refused(409, desk.service.make_result_proxy, ME, order, of_source=False)

    run(test)


def test_a_result_is_shown_in_its_folder(run, monkeypatch):
    begun = []
    monkeypatch.setattr(service_of_page, "show_in_folder", begun.append)

    async def test(desk):
        order = await desk.restored(desk.open())
        desk.service.show(ME, order)
        assert begun == [desk.home / "tape-clear.mp4"]

    run(test)


def test_copies_that_browsers_play(run):
    async def test(desk):
        video = desk.open()
        for _ in range(2):
            desk.service.make_proxy(ME, video)
        await desk.until(lambda: desk.shown(video)["proxy"]["state"] == "done")
        order = await desk.restored(video)
        assert desk.shown(order)["source_proxy"]["url"] == desk.shown(video)["proxy"]["url"]
        desk.service.make_result_proxy(ME, order, of_source=False)
        await desk.until(lambda: desk.shown(order)["result_proxy"]["url"])
        # The video is removed, and its copy with it.
        desk.service.forget_video(ME, video)
        assert desk.shown(order)["source_proxy"] is None
        assert desk.shown(order)["source"] == f"/media/restored-source/{order}"
        desk.service.make_result_proxy(ME, order, of_source=True)
        await desk.until(lambda: desk.shown(order)["source_proxy"]["url"])
        sources = [each[1] for each in desk.commands("proxy")]
        assert [Path(each).name for each in sources] == ["tape.mp4", "tape-clear.mp4", "tape.mp4"]

    run(test)


def test_a_forgotten_video_keeps_its_upload_for_its_restoration(run):
    async def test(desk):
        video = desk.upload()
        await desk.analyzed(video)
        hold = desk.hold()
        path = desk.library.videos[video].path
        order = desk.service.restore(ME, video, overwrite=False).id
        await desk.until(lambda: desk.shown(order)["live"])
        desk.service.forget_video(ME, video)
        assert path.exists()
        hold.unlink()
        await desk.until(lambda: desk.shown(order)["state"] == "done")
        assert path.exists()  # to compare with it
        desk.service.remove(ME, order, delete_result=False)
        await desk.until(lambda: not path.exists())
        assert (targets.videos_folder() / "tape-clear.mp4").exists()

    run(test)


def test_weights_are_downloaded_once_and_are_offered_then(run):
    async def test(desk):
        hold = desk.hold()
        for _ in range(2):
            desk.service.fetch("gpen-512")

        def fetching() -> dict[str, Any]:
            listed = state_of_page.weights(desk.service)
            assert all(each["text"] for each in listed), "the page says what each is for"
            return next(each for each in listed if each["id"] == "gpen-512")

        await desk.until(lambda: fetching()["job"]["state"] == "running")
        weight = fetching()
        assert weight["job"]["text"] in ("Starting", "Downloading GPEN 512: 0 %")
        assert not weight["is_here"]
        assert weight["license"]
        refused(404, desk.service.fetch, "gpen-3")
        path = desk.service.engine.weights / load_table()["gpen-512"].file
        path.parent.mkdir()
        path.touch()
        hold.unlink()
        await desk.until(lambda: "gpen-512" in desk.service.weights_here)
        await desk.until(lambda: not desk.service.fetches)
        assert desk.commands("weights") == [
            ["weights", "fetch", "gpen-512", "--weights", str(desk.service.engine.weights)]
        ]
        option = next(each for each in desk.service.offer.restorers if each.id == "gpen-512")
        assert option.missing == ()
        desk.service.fetch("gpen-512")
        assert not desk.service.fetches

    run(test)


def test_a_download_that_fails_says_so(run):
    async def test(desk):
        desk.fail("weights", "gpen-512 could not be fetched: no route to host; put it there")
        desk.service.fetch("gpen-512")
        await desk.until(lambda: desk.service.fetches["gpen-512"].state == "failed")
        weight = next(
            each for each in state_of_page.weights(desk.service) if each["id"] == "gpen-512"
        )
        assert "download failed" in weight["job"]["error"]

    run(test)


def test_offline_nothing_is_downloaded_or_offered_that_would_be(run):
    async def test(desk):
        refused(409, desk.service.fetch, "gpen-512")
        assert [each.id for each in desk.service.offer.restorers] == ["fusion"]
        video = desk.open()
        await desk.analyzed(video)
        assert all("--offline" in each for each in desk.commands())
        refused(400, desk.service.choose, ME, video, Change(restorer="gpen-512"))

    run(test, offline=True)


def test_choices_of_a_page_that_offered_more_can_be_changed(run):
    async def test(desk):
        video = desk.open()
        await desk.analyzed(video)
        known = desk.library.videos[video]
        known.choices = known.choices.model_copy(update={"restorer": "gpen-512"})
        desk.service.choose(ME, video, Change(strength=0.5))
        assert "not here" in refused(409, desk.service.restore, ME, video, overwrite=False)
        desk.service.choose(ME, video, Change(restorer="fusion"))
        await desk.restored(video)

    run(test, offline=True)


def test_what_was_not_used_for_long_goes_and_files_of_the_user_stay(run):
    async def test(desk):
        upload, own, kept = desk.upload(), desk.open(), desk.upload()
        order = await desk.restored(own)
        desk.service.make_proxy(ME, own)
        desk.service.make_result_proxy(ME, order, of_source=False)
        await desk.analyzed(kept)
        hold = desk.hold()
        waiting = desk.service.restore(ME, kept, overwrite=False).id
        hold.unlink()
        desk.service.pause(ME, waiting)
        await desk.analyzed(upload)
        await desk.until(lambda: desk.shown(order)["result_proxy"]["url"])
        await desk.until(lambda: desk.shown(own)["proxy"]["url"])
        await desk.until(lambda: not desk.service.lists["estimate"].is_busy)
        await desk.until(lambda: desk.shown(waiting)["state"] == "paused")
        old = time.time() - 15 * DAY
        folders = [video.upload for video in desk.library.videos.values() if video.upload]
        for item in desk.library.items():
            item.used_seconds = old
        desk.service.set_keep_days(0)
        assert len(desk.library.videos) == 3
        desk.service.set_keep_days(14)
        assert desk.shown(upload) is None
        assert desk.shown(kept) is not None  # a paused restoration needs it
        assert [each.exists() for each in folders] == [False, True]
        assert desk.shown(own)["proxy"] is None
        assert desk.shown(own)["found"]["people"]
        assert desk.shown(order)["result_proxy"] is None
        assert desk.shown(order)["result"]
        assert (desk.home / "tape.mp4").exists()
        assert (desk.home / "tape-clear.mp4").exists()

    run(test)


def test_results_in_the_folder_of_the_page_go_with_age(run):
    async def test(desk):
        video = desk.upload("visitor")
        order = await desk.restored(video, "visitor")
        each = desk.library.restorations[order]
        assert desk.shown(order, "visitor")["is_in_library"]
        assert each.target.exists()
        for item in desk.library.items():
            item.used_seconds = time.time() - 15 * DAY
        desk.service._expire()
        assert desk.shown(order, "visitor") is None
        assert not each.target.exists()
        refused(404, desk.service.set_keep_days, 1)

    run(test, is_local=False)


def test_the_space_is_known_without_a_walk(run, monkeypatch):
    async def test(desk):
        video = desk.upload()
        await desk.analyzed(video)
        await desk.until(lambda: desk.service.space_bytes(ME) > 5)
        desk.service.make_proxy(ME, video)
        await desk.until(lambda: desk.shown(video)["proxy"]["state"] == "done")
        with_proxy = await desk.until(lambda: desk.service.space_bytes(ME))
        monkeypatch.setattr(service_of_page, "size_of", None)
        assert state_of_page.state(desk.service, ME)["space_bytes"] >= with_proxy
        assert desk.service.space_bytes("other") == 0
        desk.service.forget_video(ME, video)
        await desk.until(lambda: desk.service.space_bytes(ME) == 0)

    run(test)


def test_a_page_for_others_leaves_the_list_of_the_user_alone(run, tmp_path):
    async def before(desk):
        video = desk.open()
        await desk.analyzed(video)
        desk.hold()
        desk.service.restore(ME, video, overwrite=False)

    run(before)

    async def test(desk):
        assert len(desk.library.restorations) == 1
        (desk.steering / "hold").unlink()
        video = desk.upload("visitor")
        await desk.restored(video, "visitor")
        states = [each.job.state for each in desk.library.restorations.values()]
        assert states == ["waiting", "done"]

    run(test, is_local=False)


def test_a_visitor_who_is_forgotten_leaves_nothing(run):
    async def test(desk):
        video = desk.upload("visitor")
        order = await desk.restored(video, "visitor")
        folders = {job.folder for item in desk.library.items() for job in item.jobs()}
        folders.add(desk.library.videos[video].upload)
        await desk.until(lambda: not desk.service.is_busy("visitor"))
        desk.service.forget_visitor("visitor")
        assert desk.library.items() == []
        assert desk.shown(order, "visitor") is None
        await desk.until(lambda: not any(folder.exists() for folder in folders))

    run(test, is_local=False)


def test_one_failing_care_does_not_end_the_others(run, caplog, monkeypatch):
    async def test(desk):
        await desk.analyzed(desk.open())
        monkeypatch.setattr(desk.service, "_set_weights_here", None)  # which no care expects
        await desk.until(lambda: caplog.text.count("failed to look after") > 1)
        monkeypatch.undo()
        await desk.analyzed(desk.open(desk.file("b.mp4")))

    run(test)
