"""The local page: its components and their handlers.

The page shows the output of the commands so far (`vidrestore.web.session`), so a tab that is loaded
again shows the same. A visitor (`vidrestore.web.access`) has one list of restorations, and each
of its tabs has its own video. Every handler is a coroutine on the server's event loop, where the
commands are managed too, so no locks are needed.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from vidrestore.common.errors import VidrestoreError
from vidrestore.common.profiles import load_settings
from vidrestore.common.timecode import time_text
from vidrestore.models.weights import search_folders
from vidrestore.web import content
from vidrestore.web.access import visitor_of
from vidrestore.web.queue import DEFECT, Job
from vidrestore.web.session import (
    NO_PROFILE,
    AnalysisOptions,
    RestoreOptions,
    Session,
    options_of,
    pair_of,
    people_in,
    target_of,
)
from vidrestore.web.tabs import Tab

_POLL_SECONDS = 0.3
_TICK_SECONDS = 1.0
_SUFFIXES = tuple(suffix for _, suffix in content.CONTAINERS)
_HOLDS_ALL = ".mkv"
_TAB = re.compile(r"[0-9a-f]{32}")
_NOT_OFFERED = (
    "This request has a value that the page does not offer; load the page again and choose one of "
    "the values that it shows."
)

_log = logging.getLogger("vidrestore")

_CHOSEN_ONCE = (gr.Radio, gr.Dropdown)

Updates = dict[Any, Any]
"""New values of components, by component."""


class _Blocks(gr.Blocks):
    """Blocks that pass on only values that the page offers in the tab that sends a request.

    Values become arguments of commands, and a program may send a request without the page. The
    framework compares choices, but accepts None, lists and NaN, and shows a refusal as an error
    of Python.
    """

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *rest: Any, **more: Any
    ) -> Any:
        """Check the values of a request before the framework does; see `gr.Blocks`."""
        if len(inputs) != len(block_fn.inputs):
            raise _not_offered()
        if not all(map(_is_right_kind, block_fn.inputs, inputs)):
            raise _not_offered()
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **more)
        except gr.Error as error:
            raise _not_offered() from error


def _not_offered() -> gr.Error:
    return gr.Error(_NOT_OFFERED, print_exception=False)


def _is_right_kind(component: Any, value: Any) -> bool:
    """Whether a value has the type of the component; choices and bounds are checked elsewhere."""
    if isinstance(component, _CHOSEN_ONCE):
        return isinstance(value, str)
    if isinstance(component, gr.CheckboxGroup):
        is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return is_list and len(set(value)) == len(value)
    if isinstance(component, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(component, gr.Slider):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (isinstance(value, int) or math.isfinite(value))
    return True


class Page:
    """The components of the page and their handlers.

    Args:
        session: The uploads and commands of the page.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        with _Blocks(title="vidrestore", analytics_enabled=False) as blocks:
            gr.HTML(content.HEADING)
            self._build_video()
            with gr.Column(visible=False) as self._steps:
                self._build_people()
                self._build_knobs()
                self._build_trial()
                gr.HTML(content.step(5, "Restore the whole video"))
                self._start_button = gr.Button(
                    "Restore this video", variant="primary", elem_id="start"
                )
                self._started = gr.HTML(elem_id="started")
            gr.HTML(content.step(None, "Your restorations"))
            self._build_list()
            gr.HTML(content.FOOT)
            self._connect(blocks)
        self.blocks: gr.Blocks = blocks

    def _build_video(self) -> None:
        profiles = content.profile_choices()
        self._named = gr.Textbox(visible=False)
        gr.HTML(content.step(1, "Your video"))
        self._upload = gr.File(
            label="Drop a video here, or click to choose one", height=140, elem_id="upload"
        )
        self._profile = gr.Radio(
            profiles, value=profiles[0][1], label="Kind of video", elem_id="profile"
        )
        self._found = gr.HTML(elem_id="found")

    def _build_people(self) -> None:
        gr.HTML(content.step(2, "People"))
        self._people = gr.CheckboxGroup(
            label="Choose the people whose faces vidrestore restores", elem_id="people"
        )

    def _build_knobs(self) -> None:
        where, offline = search_folders(self._session.weights), self._session.offline
        restorers, restorer = content.restorer_choices(where, offline=offline)
        detectors, detector = content.detector_choices(where, offline=offline)
        usual = load_settings(content.profile_choices()[0][1])
        gr.HTML(content.step(3, "Options"))
        self._restorer = gr.Dropdown(
            restorers,
            value=restorer,
            label="Restorer",
            info="A network repaints the face and may invent details; check the result in step 4.",
            elem_id="restorer",
        )
        self._strength = gr.Slider(
            0,
            1,
            value=usual.paste.strength,
            step=0.05,
            buttons=[],
            label="Strength (0 leaves the faces as they are, 1 uses the restored ones alone)",
            elem_id="strength",
        )
        with gr.Row():
            self._quality = gr.Radio(
                content.QUALITIES,
                value=usual.encode.quality,
                label="Quality of the new file",
                min_width=300,
                elem_id="quality",
            )
            self._suffix = gr.Radio(
                content.CONTAINERS,
                value=_HOLDS_ALL,
                label="Kind of file",
                min_width=300,
                elem_id="container",
            )
        with gr.Accordion("More", open=False):
            self._detector = gr.Dropdown(
                detectors,
                value=detector,
                label="Face detector (a change analyzes the video again)",
                elem_id="detector",
            )

    def _build_trial(self) -> None:
        gr.HTML(content.step(4, "Try it on one moment"))
        self._jump = gr.Dropdown(
            [], label="Go to the clearest view of a person", interactive=True, elem_id="jump"
        )
        self._moment = gr.Slider(
            0, 1, value=0, step=0.01, buttons=[], label=_moment_label(0), elem_id="moment"
        )
        self._close = gr.Checkbox(False, label="Crop to the largest face", elem_id="close")
        self._preview_button = gr.Button("Show before and after", elem_id="try")
        self._preview_text = gr.HTML(elem_id="tried")
        self._slider = gr.ImageSlider(
            visible=False,
            type="filepath",
            format="png",
            show_label=False,
            buttons=["fullscreen"],
            max_height=560,
            elem_id="slider",
        )

    def _build_list(self) -> None:
        self._list = gr.HTML(content.list_html([]), js_on_load=content.ON_BUTTONS, elem_id="list")
        _quiet(gr.Timer(_TICK_SECONDS).tick, self._list_now, [], [self._list])
        _quiet(self._list.click, self._change, [], [self._list])

    def _connect(self, blocks: gr.Blocks) -> None:
        outputs = [self._found, self._steps, self._people, self._jump, self._moment,
                 self._suffix, self._slider, self._preview_text, self._started]  # fmt: skip
        analysis_options = [self._profile, self._detector]
        of_profile = [self._strength, self._quality]
        _quiet(self._upload.upload, self._analyze, [self._upload, *analysis_options], outputs)
        _quiet(self._upload.clear, self._clear, [], outputs)
        _quiet(self._detector.input, self._analyze_again, analysis_options, outputs)
        _quiet(self._profile.input, self._set_profile, [self._profile], of_profile)
        _quiet(self._profile.input, self._analyze_again, analysis_options, outputs)
        at_load = [*outputs, *analysis_options, *of_profile, self._list]
        _quiet(blocks.load, self._load, [self._named], at_load, js=content.NAME_OF_TAB)
        _quiet(self._quality.change, _suffix_for, [self._quality, self._suffix], [self._suffix])
        # Not `input`, which a list also sends if the user leaves it without a choice.
        _quiet(self._jump.select, self._jump_to, [], [self._moment])
        _quiet(self._moment.change, _label_moment, [self._moment], [self._moment])
        restore_options = [self._people, *analysis_options, self._restorer, self._strength]
        preview_inputs = [self._moment, self._close, *restore_options]
        _quiet(
            self._preview_button.click,
            self._preview,
            preview_inputs,
            [self._preview_text, self._slider],
        )
        restore_inputs = [self._quality, self._suffix, *restore_options]
        _quiet(self._start_button.click, self._start, restore_inputs, [self._started, self._list])

    def _tab(self, request: gr.Request) -> Tab:
        """Return the tab that sends a request."""
        tab = self._session.tabs.claim(str(request.session_hash), _visitor(request))
        if tab is None:
            raise LookupError("a page of another visitor asks, or one too many")
        return tab

    def _analysis_of(self, request: gr.Request) -> Job | None:
        """Return the analysis of the video in the tab that sends a request; None without one."""
        tab = self._tab(request)
        return self._session.analyses.find(tab.owner, tab.analysis_id)

    async def _analyze(
        self, upload: str | None, profile: str, detector: str, request: gr.Request
    ) -> AsyncIterator[Updates]:
        """Analyze a new video."""
        stored = None if upload is None else self._session.uploads.find(upload, _visitor(request))
        if stored is None:
            yield {
                self._found: content.status_html(content.nothing_to_restore(None), is_wrong=True)
                if upload
                else ""
            }
            return
        self._drop(request)
        analysis_job = self._session.analyze(
            stored.owner, str(stored.path), AnalysisOptions(profile, detector)
        )
        async for update in self._follow(request, analysis_job):
            yield update

    async def _analyze_again(
        self, profile: str, detector: str, request: gr.Request
    ) -> AsyncIterator[Updates]:
        """Analyze the same video again if the options changed."""
        analysis_job, options = self._analysis_of(request), AnalysisOptions(profile, detector)
        # A list sends the same event if the user leaves it without a choice.
        if analysis_job is None or options_of(analysis_job) == options:
            return
        analysis_job = self._session.analyze_again(analysis_job.owner, analysis_job.job_id, options)
        async for update in self._follow(request, analysis_job):
            yield update

    async def _follow(self, request: gr.Request, analysis_job: Job) -> AsyncIterator[Updates]:
        self._tab(request).analysis_id = analysis_job.job_id
        yield self._hidden()
        async for update in self._watch(analysis_job):
            yield update

    async def _clear(self, request: gr.Request) -> Updates:
        self._drop(request)
        return self._hidden()

    def _drop(self, request: gr.Request) -> None:
        if (analysis_job := self._analysis_of(request)) is not None:
            self._session.forget_analysis(analysis_job.owner, analysis_job.job_id)
        self._tab(request).analysis_id = None

    async def _load(self, named: str | None, request: gr.Request) -> AsyncIterator[Updates]:
        """Show the last video of a tab that is loaded again."""
        tab = self._tab(request)
        updates: Updates = {self._list: self._listed(tab.owner)}
        has_video = tab.analysis_id is not None  # the user chose a video before this event came
        if named is not None and _TAB.fullmatch(named):
            before = self._session.tabs.give_name(tab, named)
            if not has_video and before is not None:
                tab.analysis_id, before.analysis_id = before.analysis_id, None
        if has_video:
            yield updates
            return
        analysis_job = self._analysis_of(request)
        if analysis_job is None or analysis_job.state == "failed":
            yield updates | {self._found: ""}
            return
        analysis_options = options_of(analysis_job)
        updates |= {
            self._profile: analysis_options.profile,
            self._detector: analysis_options.detector,
        }
        yield updates | await self._set_profile(analysis_options.profile)
        async for update in self._watch(analysis_job):
            yield update

    async def _watch(self, analysis_job: Job) -> AsyncIterator[Updates]:
        name = analysis_job.source.name
        async for text in _progress(analysis_job):
            yield {
                self._found: content.status_html(
                    f"{name}: {text}", share=content.share_done(analysis_job)
                )
            }
        if analysis_job.state == "failed":
            yield {
                self._found: content.status_html(
                    content.sentence(analysis_job.message), is_wrong=True
                )
            }
        elif analysis_job.state == "done":
            try:
                yield self._people_of(analysis_job)
            except (LookupError, TypeError, ValueError):
                _log.exception("what was found in a video was not understood")
                yield {self._found: content.status_html(content.sentence(DEFECT), is_wrong=True)}

    def _people_of(self, analysis_job: Job) -> Updates:
        analysis, people = analysis_job.outcome["analysis"], people_in(analysis_job)
        choices = content.people_choices(people)
        faces = content.faces_html(
            [f"/person/{analysis_job.job_id}/{number}.png" for _, number in choices]
        )
        found = content.status_html(f"{analysis_job.source.name}: {content.people_text(analysis)}")
        if not people:
            return {self._found: found}
        most = max(people, key=lambda person: float(person["seconds_on_screen"]))
        suffix = analysis_job.source.suffix.lower()
        last_seconds = math.floor(100 * analysis["last_frame_seconds"]) / 100
        return {
            self._found: found + faces,
            self._steps: gr.update(visible=True),
            self._people: gr.update(choices=choices, value=[number for _, number in choices]),
            self._jump: gr.update(choices=choices, value=str(most["person_id"])),
            self._moment: gr.update(maximum=last_seconds, value=_clearest(most)),
            self._suffix: suffix if suffix in _SUFFIXES else _HOLDS_ALL,
        }

    def _hidden(self) -> Updates:
        return {
            self._steps: gr.update(visible=False),
            self._slider: gr.update(visible=False, value=None),
            **dict.fromkeys((self._found, self._preview_text, self._started), ""),
        }

    async def _set_profile(self, profile: str) -> Updates:
        settings = load_settings(None if profile == NO_PROFILE else profile)
        return {self._strength: settings.paste.strength, self._quality: settings.encode.quality}

    async def _jump_to(self, chosen: gr.SelectData, request: gr.Request) -> Any:
        analysis_job = self._analysis_of(request)
        for person in () if analysis_job is None else people_in(analysis_job):
            if str(person["person_id"]) == chosen.value:
                return _clearest(person)
        return gr.skip()

    async def _preview(
        self,
        moment: float,
        close: bool,
        people: Sequence[str],
        profile: str,
        detector: str,
        restorer: str,
        strength: float,
        request: gr.Request,
    ) -> AsyncIterator[Updates]:
        analysis_job = self._analysis_of(request)
        if analysis_job is None or not people:
            yield {
                self._preview_text: content.status_html(
                    content.nothing_to_restore(analysis_job), is_wrong=True
                )
            }
            return
        restore_options = RestoreOptions(
            AnalysisOptions(profile, detector), restorer, strength, tuple(people)
        )
        job = self._session.preview(
            analysis_job.owner, analysis_job.job_id, moment, restore_options, close=close
        )
        async for text in _progress(job):
            yield {self._preview_text: content.status_html(text, share=content.share_done(job))}
        if job.state == "failed":
            yield {
                self._preview_text: content.status_html(
                    content.sentence(job.message), is_wrong=True
                )
            }
        elif job.state == "done":
            pair = tuple(map(str, pair_of(job)))
            yield {
                self._preview_text: content.status_html(content.BEFORE_AFTER),
                self._slider: gr.update(value=pair, visible=True),
            }

    async def _start(
        self,
        quality: str,
        suffix: str,
        people: Sequence[str],
        profile: str,
        detector: str,
        restorer: str,
        strength: float,
        request: gr.Request,
    ) -> Updates:
        analysis_job = self._analysis_of(request)
        if analysis_job is None or not people:
            return {
                self._started: content.status_html(
                    content.nothing_to_restore(analysis_job), is_wrong=True
                )
            }
        restore_options = RestoreOptions(
            AnalysisOptions(profile, detector), restorer, strength, tuple(people)
        )
        job = self._session.restore(
            analysis_job.owner, analysis_job.job_id, quality, suffix, restore_options
        )
        text = f"{target_of(job).name} is in the list below. You can choose another video now."
        return {
            self._started: content.status_html(text),
            self._list: self._listed(analysis_job.owner),
        }

    async def _change(self, event: gr.EventData, request: gr.Request) -> str:
        """Do what a button of the list is for."""
        session, visitor = self._session, _visitor(request)
        actions = {"stop": session.stop, "resume": session.resume, "remove": session.remove}
        data = event._data
        if isinstance(data, dict) and isinstance(data.get("does"), str):
            job = session.restorations.find(visitor, data.get("job"))
            if job is not None and data["does"] in actions:
                actions[data["does"]](visitor, job.job_id)
        return self._listed(visitor)

    async def _list_now(self, request: gr.Request) -> str:
        return self._listed(_visitor(request))

    def _listed(self, visitor: str) -> str:
        jobs = self._session.restorations.of(visitor)
        return content.list_html([(job, target_of(job), f"/result/{job.job_id}") for job in jobs])


def _visitor(request: gr.Request) -> str:
    if request.request is None:
        raise LookupError("a handler was called without a request")
    return visitor_of(request.request.scope)


def _clearest(person: Mapping[str, Any]) -> float:
    """Return the clearest moment of a person, in seconds, rounded down to a step of the slider."""
    return math.floor(100 * float(person["clearest_seconds"])) / 100


async def _progress(job: Job) -> AsyncIterator[str]:
    """Yield the progress of a job at intervals until it is over."""
    while not job.is_over:
        yield content.progress_text(job)
        await asyncio.sleep(_POLL_SECONDS)


async def _suffix_for(quality: str, suffix: str) -> str:
    """Return the suffix for a quality; only one container holds lossless video."""
    return _HOLDS_ALL if quality == "archive" else suffix


async def _label_moment(seconds: float) -> Any:
    return gr.update(label=_moment_label(seconds))


def _moment_label(seconds: float) -> str:
    return f"Moment, in seconds from the start: {time_text(seconds, 1)}"


def _quiet(
    event: Callable[..., Any],
    handler: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Any,
    js: str | None = None,
) -> None:
    """Connect a handler that shows its own progress.

    A handler that yields values for some time uses the queue, without a limit on simultaneous
    calls. All others are answered directly, because a page would stop for good if the queue lost
    an answer.
    """
    is_generator = inspect.isasyncgenfunction(handler)
    event(
        _with_plain_errors(handler),
        inputs=list(inputs),
        outputs=outputs,
        queue=is_generator,
        trigger_mode="once" if is_generator else "multiple",
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
        js=js,
    )


def _with_plain_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler whose errors reach the page as sentences."""
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def generator(*given: Any, **more: Any) -> AsyncIterator[Any]:
            try:
                async for update in handler(*given, **more):
                    yield update
            except Exception as error:
                raise _plain(error) from error

        return generator

    @functools.wraps(handler)
    async def once(*given: Any, **more: Any) -> Any:
        try:
            return await handler(*given, **more)
        except Exception as error:
            raise _plain(error) from error

    return once


def _plain(error: Exception) -> gr.Error:
    """Return the error that the page shows; a defect is written to the log."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, VidrestoreError):
        return gr.Error(escape(content.sentence(str(error))), print_exception=False)
    _log.error("a defect of the page", exc_info=error)
    return gr.Error(content.sentence(DEFECT), print_exception=False)
