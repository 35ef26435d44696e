"""What the user is told of a picture that changes its size, its pixel aspect, its colors, etc."""

from __future__ import annotations

from collections.abc import Iterator

from vidrestore.analysis.result import Analysis, of_file
from vidrestore.media.fitting import change_notices


def notices_of_changes(analysis: Analysis) -> Iterator[str]:
    """Describe the changes of the picture in the file.

    Args:
        analysis: The analysis.

    Returns:
        A sentence for each kind of change.
    """
    own = of_file(analysis)
    return change_notices(
        analysis.changes,
        own.info,
        int(own.pts[0]),
        analysis.fitted_frames,
        analysis.reduced_frames,
    )
