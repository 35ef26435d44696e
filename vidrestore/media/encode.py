"""Encodes frames into a video stream with the times, tags and shape of the source's stream."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error

from vidrestore.common.errors import OutputError, not_written
from vidrestore.common.handled import logged
from vidrestore.common.system import without_real_time
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.media.codecs import Encoding, container_options
from vidrestore.media.coded_frames import stated
from vidrestore.media.ffmpeg import run_ffmpeg

_log = logging.getLogger("vidrestore")

_UNSPECIFIED = 2
# Flags of AVCodecContext that PyAV has no name for.
_FRAME_DURATION = 1 << 8
_INTERLACED_DCT = 1 << 18
_INTERLACED_ME = 1 << 29
_FULL_RANGE = 2
_SWSCALE_MATRICES = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": "BT2020"}
_FIELD_ORDERS = {"progressive": 1, "tff": 2, "bff": 3}


def choose_encoding(
    ways: Sequence[Encoding], source: Path, folder: Path, info: VideoInfo, *, threads: int
) -> tuple[Encoding, Path | None]:
    """Find the first encoding that accepts a picture of this shape, by encoding a black one.

    Args:
        ways: The possible encodings, best first.
        source: The source, from whose first frame the header is made.
        folder: A folder for the trial file, which is removed, and for the header, which stays.
        info: The stream of the source.
        threads: The number of threads of the encoder.

    Returns:
        The encoding, and its header for `VideoWriter` or None if it needs none.

    Raises:
        OutputError: No encoding accepts the picture.
    """
    reasons = []
    for encoding in ways:
        trial = folder / f"trial{encoding.suffix}"
        try:
            header = _light_header(source, folder / f"header{encoding.suffix}", info, encoding)
            few = encoding.of_few_frames()
            with VideoWriter(trial, info, few, threads=threads, header=header) as writer:
                writer.write(Frame(0, 0, _plain_image(info)))
        except (OutputError, ValueError) as error:
            _log.info("%s does not take the picture: %s", encoding.encoder, error)
            reasons.append(f"{encoding.encoder}: {error}")
        else:
            return encoding, header
        finally:
            trial.unlink(missing_ok=True)
    shape = f"{info.width} x {info.height} pixels in {ways[0].pixel_format}"
    raise OutputError(f"no encoder accepts {shape} for {ways[0].codec} ({'; '.join(reasons)})")


def _plain_image(info: VideoInfo) -> av.VideoFrame:
    """Return a picture whose samples are all 0."""
    image = av.VideoFrame(info.width, info.height, info.pixel_format)
    for plane in image.planes:
        plane.update(bytes(plane.buffer_size))
    return image


def _light_header(source: Path, path: Path, info: VideoInfo, encoding: Encoding) -> Path | None:
    """Write a file of one frame whose container states the HDR10 metadata of the source.

    PyAV cannot pass this metadata from the encoder to the container; the ffmpeg program does.
    Return None where the encoding does not need such a file.
    """
    if not encoding.needs_light_header:
        return None
    options = [item for k, v in encoding.options.items() for item in (f"-{k}:v", v)]
    aspect = info.sample_aspect_ratio
    shape = f"scale={info.width}:{info.height},setsar={aspect.numerator}/{aspect.denominator}"
    # `remux` states these, where the output can.
    shape += "".join(f",sidedata=delete:type={kind}" for kind in ("STEREO3D", "SPHERICAL"))
    done = run_ffmpeg(
        ["-v", "error", "-y", "-noautorotate", "-i", str(source.absolute()),
         "-map", f"0:{info.stream_index}", "-frames:v", "1", "-vf", shape,
         "-c:v", encoding.encoder,
         "-pix_fmt", encoding.pixel_format, *options, str(path.absolute())],
    )  # fmt: skip
    if done.status:
        reason = done.printed.strip()
        raise OutputError(f"the first frame of {source} cannot be encoded: {reason}")
    return path


class VideoWriter:
    """Encodes frames into a file that holds nothing else.

    A context manager: leaving it finishes the file, leaving it after an error removes the file.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        encoding: Encoding,
        *,
        threads: int,
        header: Path | None = None,
    ) -> None:
        """Open the file and the encoder.

        Args:
            path: The file; an existing one is replaced.
            info: The stream of the source.
            encoding: The encoding.
            threads: The number of threads of the encoder.
            header: A file whose container states the HDR10 metadata that the codec cannot; None:
                none.

        Raises:
            OutputError: The file cannot be written, or another encoder made `header`.
        """
        self._path = path
        self._info = info
        self._encoding = encoding
        self.frame_count = 0
        """The number of frames that were written."""
        self.copied_count = 0
        """The number of these whose packets were copied."""
        self._held = 0
        self._strip = _StereoFilter(info.time_base) if encoding.without_stereo else None
        try:
            self._container = av.open(
                str(path.absolute()), "w", container_options=container_options(path)
            )
        except OSError as error:
            raise not_written(str(path), path.parent, error, "cannot be written") from error
        try:
            self._open(threads, header)
        except BaseException:
            self._discard()
            raise

    def _open(self, threads: int, header: Path | None) -> None:
        """Add the video stream, from the header if there is one, and set up the encoder."""
        if header is None:
            self._stream: Any = self._container.add_stream(
                self._encoding.encoder, rate=self._info.frame_rate, options=self._encoding.options
            )
            self._context: Any = self._stream.codec_context
        else:
            with av.open(str(header.absolute())) as header_file:
                template: Any = header_file.streams.video[0]
                self._stream = self._container.add_stream_from_template(template, opaque=True)
                extradata = template.codec_context.extradata
            self._stream.time_base = self._info.time_base
            self._context = av.CodecContext.create(self._encoding.encoder, "w")
            self._context.options = self._encoding.options
            self._context.framerate = self._info.frame_rate
        self._describe(threads)
        if header is not None:
            with without_real_time():
                self._context.open()
            if self._context.extradata and self._context.extradata != extradata:
                raise OutputError(f"{header} was not made by the encoder {self._encoding.encoder}")

    def _describe(self, threads: int) -> None:
        """Set size, clock, color tags and orientation of the stream."""
        info, context = self._info, self._context
        context.width, context.height = info.width, info.height
        context.pix_fmt = self._encoding.pixel_format
        # With a coarser clock than the source's, frames of variable rate would get equal times.
        context.time_base = Fraction(info.time_base)
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = threads
        if self._encoding.encoder == "libx264":
            # PyAV asks for threads within a frame, for which x264 cuts it into slices: 3 to 14 %
            # more bytes for the same picture.
            context.thread_type = "FRAME"
        if self._encoding.encoder == "libsvtav1":
            # It writes its settings to stderr, unless it is told to write errors only.
            os.environ.setdefault("SVT_LOG", "1")
        context.flags |= _FRAME_DURATION
        context.field_order = _FIELD_ORDERS[info.field_order]
        if self._encoding.has_field_flags:
            context.flags |= _INTERLACED_DCT | _INTERLACED_ME
        range_tag, matrix, primaries, transfer = info.tags
        context.color_range = _FULL_RANGE if info.full_range else range_tag
        context.colorspace = matrix or _UNSPECIFIED
        context.color_primaries = primaries or _UNSPECIFIED
        context.color_trc = transfer or _UNSPECIFIED
        if info.display_matrix is not None:
            self._stream.set_display_matrix(list(info.display_matrix))

    def write(self, frame: Frame) -> None:
        """Write the next frame, at its own `pts` and with its own duration.

        The frame is encoded. Where the encoding copies packets, and the frame has one that states
        the same as those of the encoder, that packet is written instead.

        Args:
            frame: The frame, in order of presentation. It is converted if its pixel format is not
                that of the encoding.

        Raises:
            OutputError: The encoder fails or the file cannot be written.
        """
        if self._can_copy(frame.packet):
            self._copy(frame)
            return
        image: Any = frame.image
        if image.format.name != self._encoding.pixel_format:
            image = _converted(image, self._encoding.pixel_format, self._info)
        if self._strip is not None:
            image = self._strip(image)
        image.pts, image.time_base = frame.pts, self._info.time_base
        image.duration = frame.duration
        image.pict_type = 0  # the encoder decides on its own I, P and B frames
        self._held += 1
        self._mux(image)
        self.frame_count += 1

    def _can_copy(self, packet: bytes | None) -> bool:
        """Whether a packet of the source can be the next one of the stream."""
        how = self._encoding
        # A packet that the encoder still holds back belongs before it.
        if packet is None or how.copied is None or self._held:
            return False
        return stated(how.codec, packet) == how.copied

    def _copy(self, frame: Frame) -> None:
        """Write the packet of a frame, at the time of the frame."""
        packet: Any = av.Packet(frame.packet)
        packet.pts = packet.dts = frame.pts
        packet.duration, packet.time_base = frame.duration, self._info.time_base
        packet.is_keyframe = True
        packet.stream = self._stream
        try:
            self._container.mux(packet)
        except (av.error.FFmpegError, OSError, MemoryError) as error:
            raise self._failure(error) from error
        self.copied_count += 1
        self.frame_count += 1

    def _mux(self, image: Any) -> None:
        """Encode an image, or None to flush the encoder, and write its packets."""
        try:
            # The first picture opens an encoder without a header.
            with without_real_time() if self.frame_count == 0 else nullcontext():
                packets = self._context.encode(image)
            for packet in packets:
                self._held -= 1
                packet.stream = self._stream
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError, MemoryError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OutputError:
        """Return the error for a frame that could not be encoded or written."""
        what = f"encoding frame {self.frame_count} into {self._path}"
        return not_written(what, self._path.parent, error)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._mux(None)
            self._container.close()
        except (av.error.FFmpegError, OSError, MemoryError) as failed:
            self._discard()
            raise self._failure(failed) from failed
        except OutputError:
            self._discard()
            raise

    def _discard(self) -> None:
        failures = av.error.FFmpegError, OSError, ValueError
        with logged(*failures, what=f"closing {self._path}"):
            self._container.close()
        self._path.unlink(missing_ok=True)


class _StereoFilter:
    """Takes what frames state of stereo 3D from them, which x264 would write into the stream."""

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Any = None

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        """Return the frame without that statement; its samples are not copied."""
        if self._graph is None:
            self._graph = av.filter.Graph()
            source = self._graph.add_buffer(
                width=image.width,
                height=image.height,
                format=image.format,
                time_base=self._time_base,
            )
            strip = self._graph.add("sidedata", "mode=delete:type=STEREO3D")
            self._graph.link_nodes(source, strip, self._graph.add("buffersink"))
            self._graph.configure()
        self._graph.push(image)
        stripped: av.VideoFrame = self._graph.pull()
        return stripped


def _converted(image: av.VideoFrame, pixel_format: str, info: VideoInfo) -> Any:
    """Convert a frame to another pixel format with the same matrix and range."""
    if image.format.is_rgb and av.VideoFormat(pixel_format).is_rgb:
        return image.reformat(format=pixel_format)
    matrix = _SWSCALE_MATRICES[info.matrix]
    value_range = "JPEG" if info.full_range else "MPEG"
    converted = image.reformat(
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=value_range,
        dst_color_range=value_range,
    )
    # swscale states the matrix that it was given, also where the source states none.
    converted.colorspace, converted.color_range = image.colorspace, image.color_range
    return converted
