"""Faces keep only the part that a face swap changed, and are left out where it changed nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vidrestore.frame import FaceFrame, Frame, VideoInfo
from vidrestore.looks import unit_of
from vidrestore.summary import Tally
from vidrestore.swap import swapped_region


def only_swapped(
    frames: Iterator[FaceFrame],
    before: Iterator[Frame],
    info: VideoInfo,
    before_info: VideoInfo,
    tally: Tally,
) -> Iterator[FaceFrame]:
    """Give every face its `region`; `before` are the same frames as they were before the swap.

    A face without any is left out and counted, so that nothing is spent on it.
    """
    for frame, was in zip(frames, before, strict=True):
        faces = []
        for face in frame.faces:
            region = swapped_region(frame.frame.image, was.image, unit_of(face), info, before_info)
            if region is not None:
                faces.append(replace(face, region=region))
            elif tally.counts(frame.frame.index):
                tally.not_restored["not changed by the face swap"] += 1
        yield frame.with_faces(tuple(faces))
