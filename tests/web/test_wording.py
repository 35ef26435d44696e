"""What the page says: no options, no settings, no paths of this computer, no names of libraries."""

import re
from pathlib import Path

import pytest
from helpers.messages import messages

from vidrestore.web import wording
from vidrestore.web.choices import Choices, offer
from vidrestore.web.queue import DEFECT, Job, StageProgress
from vidrestore.web.wording import UNEXPLAINED

SOURCE = Path("/home/anna/My Videos/tape 1.mp4")
WORK = Path("/home/anna/.local/share/vidrestore/ui/work/0123")


def filled(text: str) -> str:
    """A message with a value for each expression in it: paths, else a number."""
    kinds = re.compile("path|source|target|folder|output|file")

    def value(found: re.Match[str]) -> str:
        return str(SOURCE) if kinds.search(found[0]) else "7"

    return re.sub(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", value, text)


CORPUS = [(kind, filled(text)) for name, _, kind, text in messages() if not name.startswith("web/")]
FORBIDDEN = re.compile(
    r"(?<![\w-])--?[a-z]{2}|\b(restore|detect|encode|paste|guard|job|weights|people|decode|align)\."
    r"[a-z_]+|/|\\|~|\b(torch|ONNX|onnxruntime|OpenVINO|ffmpeg|CUDA|cache|sha256|template|yuv\w*"
    r"|landmarks?|batch(es)?|segments?|cascades|Deflate|parameters"
    r"|Nobody|encoder)\b"
)


@pytest.mark.parametrize("kind", ["error", "notice"])
def test_no_message_of_the_program_comes_with_what_only_a_terminal_knows(kind):
    assert len(CORPUS) > 250
    shown = 0
    for _, message in CORPUS:
        said = (
            [wording.error(message, [SOURCE, WORK])]
            if kind == "error"
            else wording.notes([message], [SOURCE, WORK])
        )
        for text in said:
            shown += text != UNEXPLAINED
            assert not FORBIDDEN.search(re.sub(r'"[^"]*"', "", text)), (message, text)
            assert "anna" not in text
            assert text.endswith((".", "!", "?"))
            assert "\n" not in text
    assert shown > len(CORPUS) / 3  # it is not that simple


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (f"no space is left in {SOURCE.parent}; make room and run the same command again",
         "The disk is full; make room, then press Continue."),
        (f"the file {SOURCE} cannot be read as video: invalid data found when processing input",
         "There is no video in this file, or it is damaged."),
        (f"the file {SOURCE} does not exist",
         "A file is no longer there, or its disk is not connected."),
        (f"the file {SOURCE} cannot be read: permission denied", "You may not read this file."),
        (f"{SOURCE} exists already; add --overwrite to replace it",
         "There is a file of this name already; choose another name."),
        ("no person's eyes are 80 pixels apart; choose a smaller distance",
         "No person is left to restore; choose more people or smaller faces."),
        (f"frame 7 of {SOURCE} differs from the one of the first pass, so the file changed in the "
         "meantime or cannot be read reliably; run the command again",
         "The file changed while vidrestore read it; wait until it is copied whole, then try "
         "again."),
        ("another program ended the work (SIGKILL); the machine may be short of memory",
         "Another program ended the work; the computer may be short of memory."),
        ("the time cannot be estimated without the weights gpen-2048; run vidrestore weights fetch",
         "The time is known once GPEN 2048 is downloaded."),
        ("gpen-512.pth could not be fetched: https://x/y is not there; put it by hand",
         "The download failed; check the connection, then try again."),
        (DEFECT, wording.DEFECT),
        ("", UNEXPLAINED),
        ("the template of the landmarks is gpen", UNEXPLAINED),
        ("/a/b c.onnx cannot be loaded as an ONNX network: Protobuf parsing failed",
         "A network that this needs is damaged or of another kind; replace its file, or choose "
         "another way under More."),
        ("VP9 cannot hold 640 x 480 pixels in gray16le; set --codec to auto",
         "The picture cannot be stored in this kind of file; choose .mkv, or another quality."),
        ("a JPEG cannot hold transparency, which in.png has; name the output .png or .tif",
         "A JPEG cannot hold transparency, which in.png has; name the output .png or .tif."),
        ("/a/b.gif is a GIF; convert it to a video first, for example with ffmpeg -i INPUT "
         "-pix_fmt yuv420p OUTPUT.mp4", '"b.gif" is a GIF; convert it to a video first.'),
        (f"{SOURCE} is damaged and cannot be decoded; replace the file",
         '"tape 1.mp4" is damaged and cannot be decoded; replace the file.'),
    ],
)  # fmt: skip
def test_errors_are_said_in_peoples_words(message, said):
    assert wording.error(message, [SOURCE]) == said


@pytest.mark.parametrize(
    ("notice", "said"),
    [
        ("restore.denoise has no effect on fusion, which uses several frames itself", []),
        ("the report is in /home/anna/report.html", []),
        ("the analysis of an earlier run is used", []),
        ("clip.mp4 loses its styling; use --codec h264", ["clip.mp4 loses its styling."]),
        ("vidrestore works without the face mesh, because its file is missing: its download failed "
         "(--verbose shows the reason); get it with vidrestore weights fetch face-mesh",
         ["The network that checks each face is not here, so faces were restored without this "
          "check."]),
        ("the expressions of restored faces are not compared with their source's, because its file "
         "is missing: nothing is downloaded for this detector",
         ["The network that checks each face is not here, so faces were restored without this "
          "check."]),
        ("vidrestore does not recognize people from one shot to the next", []),
        ("the picture is interlaced, top field first; the output has a frame for each field "
         "(--deinterlace bob)",
         ["The picture is interlaced, top field first; the output has a frame for each field."]),
        ("the detector failed in 3 frames; faces may be missing there",
         ["In 3 frames, faces could not be looked for."]),
        ("stream 2 (hdmv_pgs_subtitle) holds subtitles as pictures, which only an .mkv file can "
         "keep", ["Subtitles were left out; only an .mkv file can keep them."]),
        ("stream 3 (subrip) is left out of a sample, which has picture and sound only",
         ["A part of a video gets picture and sound only, so subtitles were left out."]),
        (f"restored faces are kept in {WORK} (7 MB); later runs with restore.cache_crops use them",
         []),
        ("gpen-512 looks at several frames itself, so it restored every frame: restore.key_frames "
         "has no effect on it",
         ["“Faster” would not save time here, so every picture was restored."]),
        ("vidrestore found no face in 2 boxes; the landmarks are guessed",
         ["vidrestore found no face in 2 boxes."]),
        ("3 frames are damaged in the source", ["3 frames are damaged in the source."]),
        (f"{WORK}/proxy.mp4 was written to", ['"proxy.mp4" was written to.']),
        (r"C:\Users\Anna\tape.mp4 has two sound tracks", ['"tape.mp4" has two sound tracks.']),
        ("a\u202eb\n\x1b[31m is odd", ["A\\u202eb\\n\\x1b[31m is odd."]),
    ],
)  # fmt: skip
def test_a_notice_keeps_what_a_person_can_use(notice, said):
    assert wording.notes([notice, notice], [SOURCE, WORK]) == said


def job(state: str, *progress: object) -> Job:
    made = StageProgress(*progress, 0, 0.0) if progress else None
    return Job(job_id="1", owner="me", folder=Path(), state=state, progress=made)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (job("waiting"), "Waiting for its turn"),
        (job("running"), "Starting"),
        (job("running", "restore", "frames", 40, 100), "Restoring faces: 40 %"),
        (job("running", "restore", "frames", 999, 1000), "Restoring faces: 99 %"),
        (job("running", "analyze", "frames", 4, None), "Looking for faces"),
        (job("running", "check", "frames", 1, 1), "Comparing the result with the original: 100 %"),
        (job("running", "fetch gpen-512", "bytes", 5, 10), "Downloading GPEN 512: 50 %"),
        (job("running", "fetch gpen-512", "bytes", 5_000_000, None), "Downloading GPEN 512: 5 MB"),
        (job("running", "something new", "frames", 1, 2), "Working: 50 %"),
        (job("pausing", "restore", "frames", 40, 100), "Pausing"),
        (job("paused", "restore", "frames", 40, 100), "Paused; finished work is kept"),
        (job("done"), ""),
        (job("failed"), ""),
    ],
)
def test_what_a_job_is_doing(job, said):
    assert wording.progress(job) == said


def analysis(people: int, shots: int, *, joined: bool = False) -> dict[str, object]:
    return {"people": [{}] * people, "shots": [[0, 1]] * shots, "people_are_joined": joined}


def test_who_was_found():
    assert wording.found(analysis(0, 3)).startswith("No face was found")
    assert wording.found(analysis(1, 1)) == "1 person was found."
    assert wording.found(analysis(2, 1200, joined=True)) == "2 people were found in 1,200 shots."
    assert "several times" in wording.found(analysis(2, 2))


def test_what_was_done():
    summary = {"faces": 1, "frames": 3120, "skipped": {"blurred": 1, "small": 2}}
    assert wording.done(summary) == (
        "Done: 1 face restored in 3,120 frames. 3 faces were left as before."
    )
    assert wording.done({"faces": 2, "frames": 1, "skipped": {}}) == (
        "Done: 2 faces restored in 1 frame."
    )
    assert wording.done({}) == "Done."


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"strength": 0.7}, "Home video, gentle, strength 0.7"),
        ({"profile": "none", "strength": 1.0, "people": [3]}, "Gentle, strength 1, 1 person"),
        ({"people": [1, 2], "strength": 0.5}, "Home video, gentle, strength 0.5, Anna and Tom"),
        ({"people": [1, 2, 3], "strength": 0.5}, "Home video, gentle, strength 0.5, 3 people"),
        ({"restorer": "gpen-512", "least_eye_px": 20.0, "strength": 1.0},
         "Home video, repaint at 512, strength 1, eyes at least 20 pixels apart"),
        ({"start_seconds": 61.0, "key_frames": True, "strength": 1.0},
         "Home video, gentle, strength 1, from 1:01 to the end, faster with key frames"),
        ({"end_seconds": 3661.0, "strength": 1.0},
         "Home video, gentle, strength 1, from 0:00 to 1:01:01"),
    ],
)  # fmt: skip
def test_the_choices_in_a_line(choices, said):
    names = {1: "Anna", 2: "Tom"}
    assert wording.settings(Choices(**choices), offer((), offline=False), names) == said
