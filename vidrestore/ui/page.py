"""The local page: what stands on it, and what each thing on it does.

What is shown is what the commands said so far (`vidrestore.ui.desk`), so that a page that is opened
again, or a second one, shows the same. Every handler is a coroutine on the server's loop, as the
commands are, so nothing is locked.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vidrestore.clock import time_text
from vidrestore.profiles import load_settings
from vidrestore.ui import words
from vidrestore.ui.desk import NO_PROFILE, Desk, Kind, Order, kind_of, pair_of, people_in, target_of
from vidrestore.ui.jobs import Job
from vidrestore.weights import search_folders

_POLL_SECONDS = 0.3
_TICK_SECONDS = 1.0
_SUFFIXES = tuple(suffix for _, suffix in words.CONTAINERS)
_HOLDS_ALL = ".mkv"

Shown = dict[Any, Any]
"""What becomes of which component."""


class Page:
    """The components, and what happens when they are used."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        with gr.Blocks(title="vidrestore", analytics_enabled=False) as blocks:
            gr.HTML(words.HEADING)
            self._build_video()
            with gr.Column(visible=False) as self._steps:
                self._build_people()
                self._build_knobs()
                self._build_trial()
                gr.HTML(words.step(5, "Restore the whole video"))
                self._start_button = gr.Button(
                    "Restore this video", variant="primary", elem_id="start"
                )
                self._started = gr.HTML(elem_id="started")
            gr.HTML(words.step(None, "Your restorations"))
            self._build_list()
            gr.HTML(words.FOOT)
            self._connect(blocks)
        self.blocks: gr.Blocks = blocks

    def _build_video(self) -> None:
        profiles = words.profile_choices()
        self._look_id = gr.State(None)
        gr.HTML(words.step(1, "Your video"))
        self._upload = gr.File(
            label="Drop a video here, or click to choose one", height=140, elem_id="upload"
        )
        self._profile = gr.Radio(
            profiles, value=profiles[0][1], label="What is it?", elem_id="profile"
        )
        self._found = gr.HTML(elem_id="found")

    def _build_people(self) -> None:
        gr.HTML(words.step(2, "Who is to be restored"))
        self._people = gr.CheckboxGroup(
            label="Tick everybody whose face is to be made clear", elem_id="people"
        )

    def _build_knobs(self) -> None:
        where, offline = search_folders(self._desk.weights), self._desk.offline
        restorers, restorer = words.restorer_choices(where, offline=offline)
        detectors, detector = words.detector_choices(where, offline=offline)
        usual = load_settings(words.profile_choices()[0][1])
        gr.HTML(words.step(3, "How"))
        self._restorer = gr.Dropdown(
            restorers,
            value=restorer,
            label="Way of restoring",
            info="A network repaints the face and may invent what is not there; look at step 4.",
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
                words.QUALITIES,
                value=usual.encode.quality,
                label="Quality of the new file",
                min_width=300,
                elem_id="quality",
            )
            self._suffix = gr.Radio(
                words.CONTAINERS,
                value=_HOLDS_ALL,
                label="Kind of file",
                min_width=300,
                elem_id="container",
            )
        with gr.Accordion("More", open=False):
            self._detector = gr.Dropdown(
                detectors,
                value=detector,
                label="How faces are found (a change looks through the video again)",
                elem_id="detector",
            )

    def _build_trial(self) -> None:
        gr.HTML(words.step(4, "Try it on one moment"))
        self._jump = gr.Dropdown([], label="Go to where somebody is seen best", elem_id="jump")
        self._moment = gr.Slider(
            0, 1, value=0, step=0.01, buttons=[], label=_moment_label(0), elem_id="moment"
        )
        self._close = gr.Checkbox(False, label="Show the largest face alone", elem_id="close")
        self._try_button = gr.Button("Show before and after", elem_id="try")
        self._tried = gr.HTML(elem_id="tried")
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
        self._list = gr.HTML(self._listed(), js_on_load=words.ON_BUTTONS, elem_id="list")
        _quiet(gr.Timer(_TICK_SECONDS).tick, self._list_now, [], [self._list])
        _quiet(self._list.click, self._change, [], [self._list])

    def _connect(self, blocks: gr.Blocks) -> None:
        shown = [self._look_id, self._found, self._steps, self._people, self._jump, self._moment,
                 self._suffix, self._slider, self._tried, self._started]  # fmt: skip
        kind = [self._profile, self._detector]
        of_profile = [self._strength, self._quality]
        again = [self._look_id, *kind]
        _quiet(self._upload.upload, self._look, [self._upload, *again], shown)
        _quiet(self._upload.clear, self._clear, [self._look_id], shown)
        _quiet(self._detector.input, self._look_again, again, shown)
        _quiet(self._profile.input, self._set_profile, [self._profile], of_profile)
        _quiet(self._profile.input, self._look_again, again, shown)
        _quiet(blocks.load, self._load, [], [*shown, *kind, *of_profile])
        _quiet(self._quality.change, _suffix_for, [self._quality, self._suffix], [self._suffix])
        _quiet(self._jump.input, self._jump_to, [self._look_id, self._jump], [self._moment])
        _quiet(self._moment.change, _label_moment, [self._moment], [self._moment])
        order = [self._look_id, self._people, *kind, self._restorer, self._strength]
        trial = [self._moment, self._close, *order]
        _quiet(self._try_button.click, self._try, trial, [self._tried, self._slider])
        whole = [self._quality, self._suffix, *order]
        _quiet(self._start_button.click, self._start, whole, [self._started, self._list])

    async def _look(
        self, upload: str | None, look_id: int | None, profile: str, detector: str
    ) -> AsyncIterator[Shown]:
        """Look at a new video, or at the same one in another way."""
        if upload is None:
            yield {self._found: ""}
            return
        look = self._desk.look(Path(upload), Kind(profile, detector))
        self._drop(look_id)
        yield {self._look_id: look.job_id} | self._hidden()
        async for shown in self._watch(look):
            yield shown

    async def _look_again(
        self, look_id: int | None, profile: str, detector: str
    ) -> AsyncIterator[Shown]:
        look = self._desk.looks.find(look_id)
        source = None if look is None else str(look.source)
        async for shown in self._look(source, look_id, profile, detector):
            yield shown

    async def _clear(self, look_id: int | None) -> Shown:
        self._drop(look_id)
        return {self._look_id: None} | self._hidden()

    def _drop(self, look_id: int | None) -> None:
        if (look := self._desk.looks.find(look_id)) is not None:
            self._desk.looks.remove(look)

    async def _load(self) -> AsyncIterator[Shown]:
        """A page that is opened shows the video that was looked at last."""
        look = self._desk.last_look()
        if look is None or look.state == "failed":
            yield {self._found: ""}
            return
        kind = kind_of(look)
        known = {self._look_id: look.job_id, self._profile: kind.profile,
                 self._detector: kind.detector}  # fmt: skip
        yield known | await self._set_profile(kind.profile)
        async for shown in self._watch(look):
            yield shown

    async def _watch(self, look: Job) -> AsyncIterator[Shown]:
        name = look.source.name
        async for text in _progress(look):
            yield {self._found: words.said(f"{name}: {text}", share=words.share_done(look))}
        if look.state == "failed":
            yield {self._found: words.said(words.sentence(look.message), wrong=True)}
        elif look.state == "done":
            yield self._people_of(look)

    def _people_of(self, look: Job) -> Shown:
        analysis, people = look.outcome["analysis"], people_in(look)
        choices = words.people_choices(people)
        faces = words.faces_css([f"/person/{look.job_id}/{number}.png" for _, number in choices])
        found = words.said(f"{look.source.name}: {words.people_text(analysis)}")
        if not people:
            return {self._found: found}
        most = max(people, key=lambda person: float(person["seconds_on_screen"]))
        suffix = look.source.suffix.lower()
        last_seconds = math.floor(100 * analysis["last_frame_seconds"]) / 100
        return {
            self._found: found + faces,
            self._steps: gr.update(visible=True),
            self._people: gr.update(choices=choices, value=[number for _, number in choices]),
            self._jump: gr.update(choices=choices, value=str(most["person_id"])),
            self._moment: gr.update(maximum=last_seconds, value=_clearest(most)),
            self._suffix: suffix if suffix in _SUFFIXES else _HOLDS_ALL,
        }

    def _hidden(self) -> Shown:
        return {
            self._steps: gr.update(visible=False),
            self._slider: gr.update(visible=False, value=None),
            **dict.fromkeys((self._found, self._tried, self._started), ""),
        }

    async def _set_profile(self, profile: str) -> Shown:
        settings = load_settings(None if profile == NO_PROFILE else profile)
        return {self._strength: settings.paste.strength, self._quality: settings.encode.quality}

    async def _jump_to(self, look_id: int | None, number: str) -> Any:
        look = self._desk.looks.find(look_id)
        for person in () if look is None else people_in(look):
            if str(person["person_id"]) == number:
                return _clearest(person)
        return gr.skip()

    async def _try(
        self, moment: float, close: bool, look_id: int | None, people: Sequence[str], *how: Any
    ) -> AsyncIterator[Shown]:
        look = self._desk.looks.find(look_id)
        if look is None or not people:
            yield {self._tried: words.said(words.nobody(look), wrong=True)}
            return
        job = self._desk.try_out(look, moment, _order(people, *how), close=close)
        async for text in _progress(job):
            yield {self._tried: words.said(text, share=words.share_done(job))}
        if job.state == "failed":
            yield {self._tried: words.said(words.sentence(job.message), wrong=True)}
        elif job.state == "done":
            pair = tuple(map(str, pair_of(job)))
            yield {
                self._tried: words.said(words.BEFORE_AFTER),
                self._slider: gr.update(value=pair, visible=True),
            }

    async def _start(
        self, quality: str, suffix: str, look_id: int | None, people: Sequence[str], *how: Any
    ) -> Shown:
        look = self._desk.looks.find(look_id)
        if look is None or not people:
            return {self._started: words.said(words.nobody(look), wrong=True)}
        job = self._desk.restore(look, quality, suffix, _order(people, *how))
        text = f"{target_of(job).name} is on the list below. You can go on with another video."
        return {self._started: words.said(text), self._list: self._listed()}

    async def _change(self, event: gr.EventData) -> str:
        """One of the buttons of the list."""
        jobs = self._desk.restorations
        does = {"stop": jobs.stop, "again": jobs.again, "remove": jobs.remove}
        if (job := jobs.find(event.job)) is not None:
            does[event.does](job)
        return self._listed()

    async def _list_now(self) -> str:
        return self._listed()

    def _listed(self) -> str:
        jobs = self._desk.restorations.jobs
        return words.list_html([(job, target_of(job), f"/result/{job.job_id}") for job in jobs])


def _order(
    people: Sequence[str], profile: str, detector: str, restorer: str, strength: float
) -> Order:
    return Order(Kind(profile, detector), restorer, strength, tuple(people))


def _clearest(person: Mapping[str, Any]) -> float:
    """In steps of the slider."""
    return math.floor(100 * float(person["clearest_seconds"])) / 100


async def _progress(job: Job) -> AsyncIterator[str]:
    """What to say of a job, again and again until it is over."""
    while not job.is_over:
        yield words.progress_text(job)
        await asyncio.sleep(_POLL_SECONDS)


async def _suffix_for(quality: str, suffix: str) -> str:
    """What is lossless fits into one kind of file only."""
    return _HOLDS_ALL if quality == "archive" else suffix


async def _label_moment(seconds: float) -> Any:
    return gr.update(label=_moment_label(seconds))


def _moment_label(seconds: float) -> str:
    return f"Moment, in seconds from the start: {time_text(seconds, 1)}"


def _quiet(
    event: Callable[..., Any], handler: Callable[..., Any], inputs: Sequence[Any], outputs: Any
) -> None:
    """Connect a handler that says by itself what it does.

    What goes on for a while is given through the queue, as often at once as there are pages. All
    else is answered at once: a word lost in the queue would leave a page that never moves again.
    """
    goes_on = inspect.isasyncgenfunction(handler)
    event(
        handler,
        inputs=list(inputs),
        outputs=outputs,
        queue=goes_on,
        trigger_mode="once" if goes_on else "multiple",
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )
