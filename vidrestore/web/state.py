"""All that the page shows, as values for JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidrestore.common.quoting import printable
from vidrestore.web import commands, wording
from vidrestore.web.choices import Choices, weight_title
from vidrestore.web.library import Restoration, Video
from vidrestore.web.places import shown_path
from vidrestore.web.queue import Job
from vidrestore.web.service import MOMENT_SECONDS, Service, analysis_of, estimate_key


def state(service: Service, owner: str) -> dict[str, Any]:
    """Return all that a visitor sees.

    Args:
        service: The page.
        owner: The visitor.

    Returns:
        Plain values.
    """
    library, offer = service.library, service.offer
    return {
        "version": library.version,
        "is_local": service.is_local,
        "machine": service.machine,
        "keep_days": library.keep_days,
        "space_bytes": service.space_bytes(owner),
        "offline": service.engine.offline,
        "most_upload_bytes": service.most_upload_bytes,
        "notices": [*library.notices],
        "profiles": [option.as_dict() for option in offer.profiles],
        "restorers": [option.as_dict() for option in offer.restorers],
        "detectors": [option.as_dict() for option in offer.detectors],
        "qualities": [option.as_dict() for option in offer.qualities],
        "containers": [option.as_dict() for option in offer.containers],
        "weights": weights(service),
        "videos": [_video(service, video) for video in library.videos_of(owner)],
        "restorations": [_restoration(service, each) for each in library.restorations_of(owner)],
    }


def weights(service: Service) -> list[dict[str, Any]]:
    """Return the weights that can be downloaded, and how far a download is.

    Args:
        service: The page.

    Returns:
        Plain values.
    """
    found = []
    for name, weight in service.weights.items():
        title, text = weight_title(name)
        job = service.fetches.get(name)
        found.append({
            "id": name, "title": title, "bytes": weight.bytes, "license": weight.licence,
            "text": text, "is_here": name in service.weights_here,
            "job": None if job is None or job.state == "done" else _job(job),
        })  # fmt: skip
    return found


def _job(job: Job, *paths: Path) -> dict[str, Any]:
    """Return the state of a job, with its error in people's words."""
    share = None
    if job.state == "running" and job.progress is not None:
        share = job.progress.share
    return {
        "state": job.state,
        "text": wording.progress(job),
        "share": share,
        "error": _error(job, *paths),
    }


def _error(job: Job, *paths: Path) -> str | None:
    return wording.error(job.message, (*paths, job.folder)) if job.state == "failed" else None


def _video(service: Service, video: Video) -> dict[str, Any]:
    analysis = analysis_of(video)
    target = video.target_shown
    found = None if analysis is None else _found(video, analysis)
    source = f"/media/source/{video.id}?v={video.modified_ns}" if video.is_there else None
    return {
        "id": video.id,
        "name": printable(video.path.name),
        "bytes": video.bytes,
        "is_upload": video.upload is not None,
        "is_picture": video.is_picture,
        "is_there": video.is_there,
        "is_needed": service.is_needed(video),
        "place_shown": None if video.upload else shown_path(video.path.parent),
        "choices": video.choices.model_dump(),
        "names": {str(person): name for person, name in video.own_names.items()},
        "analysis": _job(video.analysis, video.path) if video.analysis else None,
        "found": found,
        "estimate": _estimate(service, video, analysis),
        "moment": _moment(video),
        "source": source,
        "proxy": _proxy(video.proxy, f"/media/proxy/{video.id}", video.path),
        "thumbnail": _thumbnail(video, analysis),
        "target": {
            "shown": str(Path(shown_path(target.parent), target.name)) if service.is_local
            else target.name,
            "folder_shown": shown_path(target.parent) if service.is_local else None,
            "folder": video.target_folder,
            "name": target.name,
            "error": video.target_error,
            "exists": video.target_exists,
        },
    }  # fmt: skip


def _found(video: Video, analysis: Mapping[str, Any]) -> dict[str, Any]:
    facts = analysis.get("video", {})
    people = []
    for person in analysis["people"]:
        number = person["person_id"]
        people.append({
            "id": number,
            "seconds": person["seconds_on_screen"],
            "eye_px": person["eye_distance_px"],
            "clearest_seconds": person["clearest_seconds"],
            "portrait": _portrait(video, number),
            "appearances": person.get("appearances", []),
        })  # fmt: skip
    return {
        "seconds": analysis.get("seconds", analysis.get("last_frame_seconds")),
        "first_seconds": analysis.get("first_seconds", 0.0),
        "frames": analysis["frames"],
        "width": analysis.get("width"),
        "height": analysis.get("height"),
        "rate": analysis.get("rate"),
        "codec": analysis.get("codec"),
        "is_interlaced": analysis.get("is_interlaced", "fields" in facts),
        "cuts_seconds": analysis.get("cuts_seconds", []),
        "faces": analysis["faces"],
        "are_joined": analysis["people_are_joined"],
        "detector": analysis.get("detector") or "",
        "people": people,
        "sentence": wording.found(analysis),
    }


def _portrait(video: Video, number: int) -> str | None:
    job = video.analysis
    return None if job is None else f"/media/portrait/{video.id}/{number}?v={job.job_id}"


def _thumbnail(video: Video, analysis: Mapping[str, Any] | None) -> str | None:
    if analysis is None or not analysis["people"] or video.analysis is None:
        return None
    return f"/media/thumbnail/{video.id}?v={video.analysis.job_id}"


def _estimate(
    service: Service, video: Video, analysis: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the time of a restoration with the present choices."""
    if analysis is None or not analysis["people"] or video.is_picture:
        return None
    shown: dict[str, Any] = {
        "state": "waiting", "seconds": None, "seconds_per_face": None, "seconds_per_frame": None,
        "faces": chosen_faces(analysis, video.choices), "seconds_with_key_frames": None,
        "error": None,
    }  # fmt: skip
    if absent := service.missing_for(video.choices):
        return shown | {"state": "done", "error": wording.not_yet_known(absent)}
    key = estimate_key(video.choices)
    job = next((each.job for each in video.estimates if each.key == key), None)
    if job is None:
        return shown
    shown["state"] = job.state
    shown["error"] = _error(job, video.path)
    measured = job.outcome.get("analysis", {}).get("estimate") if job.state == "done" else None
    if isinstance(measured, str):
        return shown | {"error": wording.error(measured)}
    if not isinstance(measured, Mapping):
        return shown
    per_face, per_frame = measured["seconds_per_face"], measured["seconds_per_frame"]
    share = _share_of_time(analysis, video.choices)
    for_frames = max(0.0, measured["seconds"] - analysis["faces"] * per_face) * share
    seconds = for_frames + shown["faces"] * per_face
    with_keys = measured.get("seconds_with_key_frames")
    if with_keys is not None:
        with_keys = seconds * with_keys / measured["seconds"] if measured["seconds"] else None
    chosen = with_keys if video.choices.key_frames and with_keys is not None else seconds
    return shown | {
        "seconds": chosen,
        "seconds_per_face": per_face,
        "seconds_per_frame": per_frame,
        "seconds_with_key_frames": with_keys,
    }


def chosen_faces(analysis: Mapping[str, Any], choices: Choices) -> int:
    """Count the faces that would be restored, as well as the analysis tells.

    Args:
        analysis: The analysis, from the JSON output.
        choices: What is chosen.

    Returns:
        The number of (face, frame) pairs.
    """
    people = [
        person
        for person in analysis["people"]
        if (choices.people is None or person["person_id"] in choices.people)
        and person["eye_distance_px"] >= choices.least_eye_px
    ]
    first, end = choices.start_seconds or 0, choices.end_seconds
    if all("appearances" in person for person in analysis["people"]):
        faces = sum(_faces_within(person["appearances"], first, end) for person in people)
        return round(faces)
    seconds = sum(person["seconds_on_screen"] for person in analysis["people"])
    share = sum(person["seconds_on_screen"] for person in people) / seconds if seconds else 1.0
    faces = float(analysis["faces"])
    return round(faces * share * _share_of_time(analysis, choices))


def _faces_within(
    appearances: Iterable[Sequence[float]], first_seconds: float, end_seconds: float | None
) -> float:
    total = 0.0
    for start, stop, faces in appearances:
        last = stop if end_seconds is None else min(stop, end_seconds)
        length, part = stop - start, last - max(start, first_seconds)
        if length <= 0:
            total += faces if start >= first_seconds and part >= 0 else 0
        else:
            total += faces * min(1.0, max(0.0, part / length))
    return total


def _share_of_time(analysis: Mapping[str, Any], choices: Choices) -> float:
    """Return the share of the video's time that is chosen."""
    whole = analysis.get("seconds", analysis.get("last_frame_seconds")) or 0
    if not whole:
        return 1.0
    end = whole if choices.end_seconds is None else min(whole, choices.end_seconds)
    return max(0.0, min(1.0, (end - (choices.start_seconds or 0)) / whole))


def _moment(video: Video) -> dict[str, Any] | None:
    job = video.moment
    if job is None:
        return None
    is_done = job.state == "done"
    address = f"/media/loop/{video.id}"
    preview = job.outcome.get("preview", job.outcome.get("summary", {}))
    return {
        "state": job.state,
        "text": wording.progress(job),
        "share": job.progress.share if job.state == "running" and job.progress else None,
        "at_seconds": video.moment_seconds,
        "seconds": MOMENT_SECONDS,
        "is_current": _is_current(video),
        "before": f"{address}/before?v={job.job_id}" if is_done else None,
        "after": f"{address}/after?v={job.job_id}" if is_done else None,
        "faces": preview.get("faces") if isinstance(preview, Mapping) else None,
        "notes": wording.notes(job.notices, (video.path, job.folder)),
        "error": _error(job, video.path),
    }


def _is_current(video: Video) -> bool:
    """Whether nothing that shapes the picture was changed since the loop was ordered."""
    made, now = video.moment_choices, video.choices
    names = ("profile", "restorer", "detector", "people", "strength", "least_eye_px")
    return made is not None and all(getattr(made, name) == getattr(now, name) for name in names)


def _proxy(job: Job | None, address: str, path: Path) -> dict[str, Any] | None:
    if job is None:
        return None
    shown = _job(job, path)
    copied = job.outcome.get("proxy")
    first = copied.get("first_seconds", 0.0) if isinstance(copied, Mapping) else 0.0
    url = f"{address}?v={job.job_id}" if job.state == "done" else None
    return shown | {"url": url, "first_seconds": first}


def _restoration(service: Service, each: Restoration) -> dict[str, Any]:
    job = each.job
    is_done, is_there = job.state == "done", each.result_bytes is not None
    paths = (each.source, each.target, job.folder)
    shown = _job(job, *paths)
    summary = job.outcome.get("summary", {})
    summary = summary if isinstance(summary, Mapping) else {}
    if is_done:
        lost = (
            "another restoration has replaced the file" if each.is_replaced else "the file is gone"
        )
        shown["text"] = wording.done(summary) if is_there else f"Done, but {lost}."
    seconds_left = None
    if job.state == "running" and job.progress is not None:
        seconds_left = job.progress.seconds_left(time.monotonic())
    video = service.library.video(each.owner, each.video)
    live = f"/media/live/{each.id}?v={job.pictures}" if job.pictures else None
    thumbnail = live or (video and _thumbnail(video, analysis_of(video)))
    has_report = is_done and (job.folder / commands.REPORT).exists()
    return {
        "id": each.id,
        "video": None if video is None else video.id,
        "name": printable(each.target.name),
        "place_shown": shown_path(each.target.parent) if service.is_local else None,
        "source_name": printable(each.source.name),
        **shown,
        "seconds_left": seconds_left,
        "notes": wording.notes([*job.notices, *summary.get("warnings", ())], paths),
        "settings_shown": each.settings_shown,
        "live": live if job.state in ("running", "pausing", "paused") else None,
        "thumbnail": thumbnail,
        "bytes": each.result_bytes,
        "result": f"/media/result/{each.id}?v={job.job_id}" if is_there else None,
        "result_proxy": _proxy(each.proxy, f"/media/result-proxy/{each.id}", each.target),
        "report": f"/media/report/{each.id}" if has_report else None,
        "source": f"/media/restored-source/{each.id}" if each.is_source_there else None,
        "source_proxy": _source_proxy(each, video),
        "seconds": each.seconds,
        "start_seconds": each.choices.start_seconds or 0,
        "is_part": each.choices.start_seconds is not None or each.choices.end_seconds is not None,
        "can_continue": job.state in ("paused", "failed"),
        "can_show": service.is_local and is_there,
        "is_in_library": service.is_in_library(each),
    }


def _source_proxy(each: Restoration, video: Video | None) -> dict[str, Any] | None:
    """Return the copy of the source; that of the open video if there is one."""
    if each.source_proxy is None and video is not None and video.path == each.source:
        return _proxy(video.proxy, f"/media/proxy/{video.id}", video.path)
    return _proxy(each.source_proxy, f"/media/restored-source-proxy/{each.id}", each.source)
