"""Stand-ins for the providers of onnxruntime that machines without their devices lack."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidrestore.models import onnx_session
from vidrestore.models.admission import Exact
from vidrestore.models.onnx_session import import_onnxruntime


class Provider:
    """Stands in for a provider of onnxruntime: computes on the processor, then `does` something."""

    def __init__(self, session: Any, name: str, does: Callable[[Any], Any]) -> None:
        self._session, self._name, self._does = session, name, does

    def get_providers(self) -> list[str]:
        return [self._name, "CPUExecutionProvider"]

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, outputs: Any, feeds: Any) -> Any:
        return [self._does(value) for value in self._session.run(outputs, feeds)]


class Machine:
    """What onnxruntime is built for; `does` maps a provider and its options to what it does."""

    def __init__(self, patch: pytest.MonkeyPatch, **does: Callable[[Any], Any]) -> None:
        self.tried: list[tuple[str, dict[str, str]]] = []
        names = [f"{name}ExecutionProvider" for name in (*does, "Azure", "CPU")]
        patch.setattr(import_onnxruntime(), "get_available_providers",
                      lambda: names)  # fmt: skip
        patch.setattr(Exact, "measured", lambda run, span=2.0: Exact(run(), 100.0, span))
        open_session = onnx_session._session

        def session(path: Path, wanted: list[Any]) -> Any:
            if wanted == ["CPUExecutionProvider"]:
                return open_session(path, wanted)
            name, options = wanted[0]
            self.tried.append((name, options))
            own = open_session(path, ["CPUExecutionProvider"])
            short = name.removesuffix("ExecutionProvider")
            is_exact = options.get("use_tf32") == "0" or options.get("precision") == "FP32"
            return Provider(own, name, (lambda value: value) if is_exact else does[short])

        patch.setattr(onnx_session, "_session", session)
