"""Restored crops that are kept: found again exactly where they belong, and nowhere else."""

import io

import numpy as np
import pytest
import torch
from helpers.events import messages
from helpers.media import plain_face, random_image
from helpers.shots_tape import Boiling, faces_of, frames_of, make_tape

from vidrestore.api import restore_video
from vidrestore.common.checksums import checksum_line
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.restoration.batching import restore
from vidrestore.restoration.crop_cache import CropCache, bytes_in
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats

ON = {"restore.cache_crops": True, "job.segment_frames": 48, "encode.codec": "ffv1",
      "encode.check": False, "deflicker.amount": 0, "guard.features": 0}  # fmt: skip


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    return make_tape(tmp_path_factory.mktemp("tape"))


def run(tape, target, restorer=None, **options):
    told = []
    settings = load_settings(options=ON | options)
    summary = restore_video(
        tape, target, settings, restorer=restorer or Boiling(), analysis=faces_of(tape),
        overwrite=True, resume=options.get("resume", True), on_event=told.append,
    )  # fmt: skip
    return summary, messages(told)


class Seen(Boiling):
    def __init__(self, reach_frames=0):
        super().__init__()
        self.reach_frames = reach_frames


def through(crops, levels, restorer, tally=None):
    image = random_image(16, 16, "yuv420p", 0)
    frames = (
        FaceFrame(Frame(i, i, image), (plain_face(torch.full((3, 8, 8), level)),))
        for i, level in enumerate(levels)
    )
    out = restore(
        frames,
        restorer,
        tally or RestorationStats(),
        how=Restore(batch_size=2, max_waiting_frames=4),
        crops=crops,
    )
    return [face.restored for frame in out for face in frame.faces]


@pytest.mark.parametrize("reach", [0, 2])
def test_what_was_kept_is_what_was_made(tmp_path, reach):
    levels = [0.1, 0.2, 0.3, 0.3, 0.4]
    crops, first, tally = CropCache(tmp_path, "so"), Seen(reach), RestorationStats()
    made = through(crops, levels, first)
    again = Seen(reach)
    found = through(CropCache(tmp_path, "so"), levels, again, tally)
    assert first.faces >= 4
    assert again.faces == 0
    assert all(torch.equal(a, b) for a, b in zip(made, found, strict=True))
    assert tally.kept + tally.repeated == len(levels)


def test_nothing_is_taken_for_another(tmp_path):
    levels = [0.1, 0.2]
    through(CropCache(tmp_path, "so"), levels, Seen())
    other = Seen()
    other.cache_key = "boiling with other weights"
    larger = Seen()
    larger.size = 16
    for made_by, values, restorer in (
        ("otherwise", levels, Seen()),
        ("so", levels, other),
        ("so", levels, larger),
        ("so", [0.1 + 1e-7, 0.2 + 1e-7], Seen()),
    ):
        through(CropCache(tmp_path, made_by), values, restorer)
        assert restorer.faces == 2


@pytest.mark.parametrize("harm", ["cut", "empty", "other byte", "no zip"])
def test_a_harmed_file_is_made_again(tmp_path, harm):
    made = through(CropCache(tmp_path, "so"), [0.1, 0.2], Seen())
    for path in tmp_path.glob("*/*.npy"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        whole = {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "other byte": data,
            "no zip": b"#" * 99,
        }
        path.write_bytes(whole[harm])
    again = Seen()
    assert all(map(torch.equal, through(CropCache(tmp_path, "so"), [0.1, 0.2], again), made))
    assert again.faces == 2
    through(CropCache(tmp_path, "so"), [0.1, 0.2], last := Seen())
    assert last.faces == 0


@pytest.mark.long
def test_one_wrong_bit_anywhere_is_found(tmp_path):
    crops, crop = CropCache(tmp_path, "so"), torch.rand(3, 8, 8, generator=torch.manual_seed(0))
    crops.keep("0123", 0, crop)
    (path,) = tmp_path.glob("*/*")
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            assert crops.find("0123", 0, 8) is None, (at, bit)
    path.write_bytes(whole)
    found = crops.find("0123", 0, 8)
    assert found is not None
    assert torch.equal(found, crop)


def test_a_file_in_the_place_of_another_is_not_taken_for_it(tmp_path):
    made = through(CropCache(tmp_path, "so"), [0.1, 0.2], Seen())
    one, other = tmp_path.glob("*/*")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    again = Seen()
    assert all(map(torch.equal, through(CropCache(tmp_path, "so"), [0.1, 0.2], again), made))
    assert again.faces == 2


def test_no_answer_is_not_kept(tmp_path):
    class Dumb(Seen):
        def __call__(self, windows):
            super().__call__(windows)
            return torch.full_like(windows[:, 0], np.nan)

    for _ in range(2):
        restorer = Dumb()
        assert through(CropCache(tmp_path, "so"), [0.1, 0.2], restorer) == [None, None]
        assert restorer.faces == 2
    assert bytes_in(tmp_path) == 0


@pytest.mark.long
def test_another_strength_needs_no_network_and_gives_the_frames_of_a_full_run(tape, tmp_path):
    target, plain = tmp_path / "out.mkv", tmp_path / "plain.mkv"
    first, told = run(tape, target)
    assert first.kept < 60  # around the borders of segments, from the one before
    assert "restored faces are kept in" in told[-1]
    before = frames_of(target)
    again = Boiling()
    changed = {"paste.strength": 0.4, "paste.color": 0.2, "guard.features": 0.5}
    second, _ = run(tape, target, again, **changed)
    assert again.faces == 0
    assert second.kept == second.faces == first.faces > 100
    run(tape, plain, **changed | {"restore.cache_crops": False})
    assert frames_of(target) == frames_of(plain) != before
    assert not plain.with_name("plain.mkv.vidrestore").exists()


@pytest.mark.long
def test_crops_outlast_a_run_without_them_but_not_another_source_or_a_new_start(tape, tmp_path):
    target = tmp_path / "out.mkv"
    folder = tmp_path / "out.mkv.vidrestore" / "crops"
    run(tape, target)
    size = bytes_in(folder)
    assert size > 100 * 12 * 32**2
    _, told = run(tape, target, **{"restore.cache_crops": False})
    assert bytes_in(folder) == size
    assert str(folder) in told[-1]
    restore_video(tape, target, load_settings(options=ON | {"restore.cache_crops": False}),
                  restorer=Boiling(), analysis=faces_of(tape), overwrite=True,
                  resume=False)  # fmt: skip
    assert not folder.parent.exists()


@pytest.mark.long
def test_faces_of_a_segment_that_was_not_finished_are_not_lost(tape, tmp_path):
    target = tmp_path / "out.mkv"
    with pytest.raises(OutputError):
        run(tape, target, Boiling(breaks_at=60))
    half = next((tmp_path / "out.mkv.vidrestore" / "crops").iterdir()) / "x.part.npy"
    half.write_bytes(b"half")
    rest = Boiling()
    summary, _ = run(tape, target, rest)
    assert not half.exists()
    assert summary.faces == 180
    assert rest.faces <= 180 - 60  # some frames of the tape show the same again


KEY, SIDE = "0123abcd", 8


def as_file(array):
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=True)
    return packed.getvalue()


def with_value(value, dtype=np.float32):
    face = np.full((3, SIDE, SIDE), 0.5, dtype)
    face[1, 2, 3] = value
    return as_file(face)


def of_shape(*shape, order="C"):
    return as_file(np.full(shape, 0.5, np.float32, order=order))


def claiming(header):
    """A file of numpy's whose header is that text, with the bytes of a whole face behind it."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(3 * SIDE**2 * 4)


def archive():
    packed = io.BytesIO()
    np.savez(packed, face=np.full((3, SIDE, SIDE), 0.5, np.float32))
    return packed.getvalue()


FORGED = {
    "nothing": lambda: b"",
    "a text": lambda: b"no picture",
    "only a magic": lambda: b"\x93NUMPY",
    "another version": lambda: b"\x93NUMPY\x09\x00" + of_shape(3, SIDE, SIDE)[8:],
    "a zip": archive,
    "half a zip": lambda: archive()[:100],
    "a pickle": lambda: as_file(np.array([{"a": print}], object)),
    "half a face": lambda: of_shape(3, SIDE, SIDE)[:-9],
    "more than a face": lambda: of_shape(3, SIDE, SIDE) + b"more",
    "a larger face": lambda: of_shape(3, 2 * SIDE, 2 * SIDE),
    "a smaller face": lambda: of_shape(3, SIDE // 2, SIDE // 2),
    "an oblong face": lambda: of_shape(3, SIDE, 2 * SIDE),
    "another axis": lambda: of_shape(1, 3, SIDE, SIDE),
    "channels last": lambda: of_shape(SIDE, SIDE, 3),
    "one channel": lambda: of_shape(SIDE, SIDE),
    "a number": lambda: as_file(np.float32(0.5)),
    "another order": lambda: of_shape(3, SIDE, SIDE, order="F"),
    "no samples": lambda: of_shape(3, 0, 0),
    "a face of 10^18 samples": lambda: claiming(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000000, 1000000000), }"
    ),
    "a face of sizes below zero": lambda: claiming(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -8, -8), }"
    ),
    "a header that is nested": lambda: claiming("(" * 100 + ")" * 10),
    "a header that is code": lambda: claiming("{'descr': print('x'), 'shape': ()}"),
    **{f"samples as {name}": lambda name=name: as_file(np.zeros((3, SIDE, SIDE), name))
       for name in ("f8", ">f4", ">f2", "u1", "i4", "?", "c8", "S4", "V4", "M8[s]")},
    **{f"{value} in it": lambda value=value: with_value(value)
       for value in (np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0, -1.0)},
    **{f"{value} in it, 16 bits": lambda value=value: with_value(value, np.float16)
       for value in (np.nan, np.inf, 6e4, -2.0)},
}  # fmt: skip


def forge(folder, content, key=KEY):
    path = folder / key[:2] / f"{key[2:]}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content + checksum_line(content, key))
    return path


@pytest.mark.parametrize("what", FORGED)
def test_a_file_whose_checksum_was_computed_anew_is_checked_too(tmp_path, caplog, what):
    caplog.set_level("INFO", "vidrestore")
    crops = CropCache(tmp_path, "so")
    path = forge(tmp_path, FORGED[what]())
    assert crops.find(KEY, 0, SIDE) is None
    (line,) = caplog.messages
    assert str(path) in line
    assert "computes it again" in line
    for dtype in (np.float32, np.float16):  # so that the file would be taken if it were right
        forge(tmp_path, as_file(np.full((3, SIDE, SIDE), 0.5, dtype)))
        found = crops.find(KEY, 0, SIDE)
        assert found is not None
        assert torch.equal(found, torch.full((3, SIDE, SIDE), 0.5))


def test_no_forged_file_is_more_than_one_that_is_made_again(tmp_path):
    """Random damage with a checksum that fits: no error, and nothing that is no face."""
    random, crops = np.random.default_rng(17), CropCache(tmp_path, "so")
    whole = {dtype: as_file(random.random((3, SIDE, SIDE)).astype(dtype)) for dtype in ("f2", "f4")}
    refused = 0
    for _ in range(400):
        content = bytearray(whole[str(random.choice(["f2", "f4"]))])
        for _ in range(random.integers(1, 4)):
            begin = int(random.integers(len(content)))
            match random.integers(4):
                case 0:
                    content[begin] ^= 1 << int(random.integers(8))
                case 1:
                    content[begin : begin + 4] = random.bytes(4)
                case 2:
                    del content[begin : begin + int(random.integers(1, 9))]
                case 3:
                    content[begin:begin] = random.bytes(3)
        forge(tmp_path, bytes(content))
        found = crops.find(KEY, 0, SIDE)
        refused += found is None
        if found is not None:
            assert found.shape == (3, SIDE, SIDE)
            assert found.dtype == torch.float32
            assert bool(torch.isfinite(found).all())
            assert -1 < float(found.min()) <= float(found.max()) < 2
    assert 200 < refused < 400


def test_a_run_makes_forged_faces_again(tmp_path):
    levels = [0.1, 0.2]
    made = through(CropCache(tmp_path, "so"), levels, Seen())
    for path, what in zip(
        sorted(tmp_path.glob("*/*.npy")), ("a larger face", "a zip"), strict=True
    ):
        forge(tmp_path, FORGED[what](), key=path.parent.name + path.stem)
    again = Seen()
    assert all(map(torch.equal, through(CropCache(tmp_path, "so"), levels, again), made))
    assert again.faces == 2
    through(CropCache(tmp_path, "so"), levels, last := Seen())
    assert last.faces == 0


def test_what_would_be_refused_is_not_kept(tmp_path):
    crops = CropCache(tmp_path, "so")
    for value in (float("nan"), float("inf"), 7.0, -7.0):
        crops.keep(KEY, 0, torch.full((3, SIDE, SIDE), value))
    assert bytes_in(tmp_path) == 0
