"""`vidrestore doctor`: offline, with nothing here, and with pieces broken."""

import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from vidrestore.cli import doctor, main
from vidrestore.cli.doctor import Diagnosis, Finding, diagnose
from vidrestore.models import weights
from vidrestore.models.onnx_session import import_onnxruntime


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("doctor asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)


def found(diagnosis: Diagnosis, what: str) -> Finding:
    (finding,) = (each for each in diagnosis.findings if each.what == what)
    return finding


def test_a_machine_with_nothing_downloaded() -> None:
    diagnosis = diagnose()
    assert diagnosis.can_run
    names = [finding.what for finding in diagnosis.findings]
    assert len(names) == len(set(names))
    assert not [f for f in diagnosis.findings if "BROKEN" in f.found]
    assert found(diagnosis, "weights gpen-2048").found == "missing"
    assert found(diagnosis, "weights gpen-2048").follows == "vidrestore weights fetch gpen-2048"
    assert "libx264" in found(diagnosis, "encoders").found
    assert "imageio-ffmpeg" in found(diagnosis, "ffmpeg").found
    assert len(diagnosis.runs_now) == 1
    assert "--restorer fusion --detector haar" in diagnosis.runs_now[0]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["doctor"])
    said = capsys.readouterr()
    assert leaving.value.code == 0
    assert "runs now: vidrestore demo" in said.out
    assert said.err == ""


def test_weights_that_are_here_and_that_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "GPEN-BFR-512.pth").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "GPEN-BFR-256.pth").write_bytes(b"<html>not found</html>")
    diagnosis = diagnose(tmp_path)
    assert found(diagnosis, "weights gpen-512").found == str(tmp_path / "GPEN-BFR-512.pth")
    assert "non-commercial" in found(diagnosis, "weights gpen-512").follows
    assert "is a web page" in found(diagnosis, "weights gpen-256").found
    assert diagnosis.can_run
    assert diagnosis.runs_now[1:] == ("--restorer gpen-512 (its weights are here)",)


def test_the_default_detector_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = diagnose(tmp_path)
    assert found(nothing, "default detector").found == "yunet, which is missing"
    assert "0.2 MB" in found(nothing, "default detector").follows
    assert "vidrestore weights fetch face-mesh" in found(nothing, "face mesh").follows
    rows = [weights.Row(name, tmp_path, 1, "", "") for name in ("buffalo_l", "yunet", "face-mesh")]
    monkeypatch.setattr(weights, "list_weights", lambda folders: rows)
    assert found(diagnose(tmp_path), "default detector").found == "insightface"
    assert found(diagnose(tmp_path), "face mesh").found == "here"
    del rows[0]
    assert found(diagnose(tmp_path), "default detector").found == "yunet"


def script(path: Path, content: str) -> Path:
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be run"),
        ("exit 3", "status 3"),
        ("echo hello", "is no ffmpeg"),
        ("exec sleep 5", "does not answer"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_an_ffmpeg_that_does_not_run(
    content: str | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "ffmpeg"
    if content is not None:
        script(program, content)
    monkeypatch.setenv("VIDRESTORE_FFMPEG", str(program))
    monkeypatch.setattr(doctor, "_PROGRAM_SECONDS", 0.3)
    finding = found(diagnosis := diagnose(), "ffmpeg")
    assert reason in finding.found
    assert "VIDRESTORE_FFMPEG" in finding.found
    assert not diagnosis.can_run
    assert diagnosis.runs_now == ()
    with pytest.raises(SystemExit) as leaving:
        main(["doctor"])
    said = capsys.readouterr()
    assert leaving.value.code == 1
    assert "Nothing can run" in said.out
    assert "Traceback" not in said.out + said.err


def test_a_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # import then raises ImportError
    diagnosis = diagnose()
    assert "BROKEN" in found(diagnosis, "torch").found
    assert not diagnosis.can_run
    assert found(diagnosis, "Python").found


def test_every_probe_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("first line\nsecond line")

    for name in ("import_module", "util", "metadata"):
        monkeypatch.setattr(doctor.importlib, name, broken)
    monkeypatch.setattr(doctor.weights, "list_weights", broken)
    monkeypatch.setattr(doctor, "machine_memory", broken)
    diagnosis = diagnose()
    assert found(diagnosis, "weights").found == "BROKEN: first line"
    assert found(diagnosis, "memory").found == "BROKEN: first line"


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name.replace("-", "_")))


def test_two_onnxruntimes_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, onnxruntime="1.20", onnxruntime_gpu="1.21")
    finding = found(diagnose(), "onnxruntime")
    assert "onnxruntime 1.20, onnxruntime-gpu 1.21" in finding.found
    assert "overwrite each other" in finding.follows


def test_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr("vidrestore.models.gpen.variants.has_bfloat16", lambda: True)
    diagnosis = diagnose()
    assert found(diagnosis, "onnxruntime").found == "not installed"
    assert found(diagnosis, "openvino").follows.startswith("optional")
    assert any("without openvino" in sentence for sentence in diagnosis.slow)


def test_a_cuda_device_is_named_and_nothing_is_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cuda_devices", lambda: [("NVIDIA H200", 139.8)])
    diagnosis = diagnose()
    assert found(diagnosis, "CUDA device").found == "cuda:0 NVIDIA H200, 140 GiB"
    assert diagnosis.slow == ()


def test_an_onnxruntime_without_cuda_beside_a_cuda_device_is_said(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_cuda_devices", lambda: [("NVIDIA H200", 139.8)])
    installed(monkeypatch, onnxruntime="1.20")
    assert "pip install onnxruntime-gpu" in found(diagnose(), "onnxruntime").follows
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(import_onnxruntime(), "get_available_providers", lambda: both)
    assert "run on the CUDA device" in found(diagnose(), "onnxruntime").follows


def test_what_does_the_pointwise_work_on_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not needed" in found(diagnose(), "Triton").follows
    monkeypatch.setattr(doctor, "_cuda_devices", lambda: [("NVIDIA H200", 139.8)])
    kernels: list[object] = [object()]
    monkeypatch.setattr(
        "vidrestore.models.gpen.cuda.triton_kernels",
        lambda device, say: kernels.pop() if kernels else say("Triton cannot be used here (why)"),
    )
    assert found(diagnose(), "Triton").follows == "runs GPEN's pointwise operations on CUDA"
    follows = found(diagnose(), "Triton").follows
    assert follows.startswith("torch runs GPEN's pointwise operations on CUDA")
    assert follows.endswith("(why)")


def test_what_is_slow_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cuda_devices", list)
    monkeypatch.setattr("vidrestore.models.gpen.variants.has_bfloat16", lambda: False)
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    slow = " ".join(diagnose().slow)
    assert "gpen-2048 on the processor" in slow
    assert "float32" in slow
    assert "one core is shared" in slow
