"""What the summary tells of a run that restored nothing."""

from dataclasses import replace

import pytest
from helpers.media import AS_PAINTED, Painter, analysis_of_file, mild_image, write_video

from vidrestore.analysis.result import NOT_A_FACE
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings


@pytest.mark.parametrize(
    ("skipped", "said"),
    [
        ({}, "no face was found; nothing was restored"),
        ({NOT_A_FACE: 3}, "no face was found; nothing was restored"),
        (
            {NOT_A_FACE: 3, "visible too briefly": 5},
            "every face that was found was left as it is; nothing was restored",
        ),
    ],
)
def test_faces_that_were_left_as_they_are_are_not_said_to_be_missing(tmp_path, skipped, said):
    images = [mild_image(96, 64, "yuv420p", seed) for seed in range(4)]
    source = write_video(tmp_path / "in.mkv", images)
    summary = restore_video(
        source, tmp_path / "out.mkv", load_settings(options=AS_PAINTED), restorer=Painter(),
        analysis=replace(analysis_of_file(source), skipped=skipped),
    )  # fmt: skip
    assert [text for text in summary.warnings if "nothing was restored" in text] == [said]
    assert summary.skipped == skipped
