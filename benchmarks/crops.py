"""How much sooner another strength is there when the restored crops were kept.

    python benchmarks/crops.py [CLIP] [FRAMES] [ROUNDS]

The same clip with the same settings but strength 0.5, once with gpen-512 (random weights) and once
from the crops that an earlier run kept; the two take turns. Times are of pass two, check apart;
CPU-seconds, which neighbours disturb least, are of the whole run. The frames must be the same.
"""

import statistics
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch
from gpen import random_gpen
from rich.console import Console
from rich.table import Table

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.restoration.crop_cache import bytes_in

SHARED = Path(__file__).parents[2] / "shared"


def main() -> None:
    clip = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "clips" / "lp_s18.mp4"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    seconds: dict[str, list[tuple[float, float]]] = {"with the network": [], "from crops": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "random-512.pth"
        torch.save(random_gpen(512).state_dict(), weights)
        options = {
            "restore.restorer": str(weights), "restore.engine": "torch", "detect.detector": "haar",
            "detect.remember": False, "encode.codec": "ffv1", "encode.check": False,
            "guard.features": 0, "paste.occluders": False,
        }  # fmt: skip
        span = TimeRange(Fraction(0), Fraction(count, 30))
        analysis = analyze_video(clip, load_settings(options=options), span=span)
        kept, plain = folder / "kept.mkv", folder / "plain.mkv"
        crops = folder / "kept.mkv.vidrestore" / "crops"

        def run(target: Path, strength: float, *, keeps: bool) -> tuple[float, float]:
            how = {"restore.cache_crops": keeps, "paste.strength": strength}
            before = time.process_time()
            summary = restore_video(
                clip, target, load_settings(options=options | how), analysis=analysis, span=span,
                overwrite=True,
            )  # fmt: skip
            return summary.seconds["restore"], time.process_time() - before

        run(kept, 1.0, keeps=True)
        for _ in range(rounds):
            seconds["with the network"].append(run(plain, 0.5, keeps=False))
            seconds["from crops"].append(run(kept, 0.5, keeps=True))
        assert digests(kept) == digests(plain), "the frames differ"
        table = Table(title=f"{clip.name}, {analysis.frame_count} frames, {analysis.face_count} "
                            f"faces; crops take {bytes_in(crops) / 1e6:.0f} MB; "
                            "the frames are the same")  # fmt: skip
        for column in ("strength 0.5", "pass two, s", "CPU-s of the run"):
            table.add_column(column, justify="right")
        medians = {key: [statistics.median(each) for each in zip(*rows, strict=True)]
                   for key, rows in seconds.items()}  # fmt: skip
        for key, (wall, cpu) in medians.items():
            table.add_row(key, f"{wall:.2f}", f"{cpu:.2f}")
        slow, quick = medians.values()
        table.add_row("ratio", *(f"{a / b:.1f}" for a, b in zip(slow, quick, strict=True)))
        Console().print(table)


def digests(path: Path) -> list[int]:
    return [
        hash(bytes(plane)) for frame in decode(path, DecodeErrors()) for plane in frame.image.planes
    ]


if __name__ == "__main__":
    main()
