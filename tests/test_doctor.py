"""The doctor says what is there, with versions and hashes, and what gets the rest."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sequences import write_sequence

from slamhmr import cli, components, doctor
from slamhmr.components import Gpu, Installed
from slamhmr.doctor import diagnose
from slamhmr.doctor_page import page

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLAMHMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def row(findings, kind, name):
    return next(one for one in findings[kind] if one["name"] == name)


def test_every_backend_is_asked():
    findings = diagnose()
    names = {one["name"] for one in findings["backends"]}
    assert {"detect=blazepose", "detect=vitpose", "slam=sfm", "init=wham", "init=lift"} <= names
    (lack,) = row(findings, "backends", "init=wham")["lacks"]
    assert lack["what"] == "weights of init 'wham': no file is given"
    assert "slamhmr convert" in lack["get"]
    text = page(findings)
    assert f"lacks: {lack['what']}; {lack['get']}" in text
    assert "package 'pycolmap' 4" in text


def test_given_weights_are_hashed_and_can_be_pinned(tmp_path, cache):
    weights = tmp_path / "wham.safetensors"
    weights.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    asked = [f"options.wham.checkpoint={weights}"]
    (found,) = row(diagnose(overrides=asked), "backends", "init=wham")["found"]
    assert (found["path"], found["bytes"], found["sha256"]) == (str(weights), 3, digest)
    pin = f"sha256.wham.checkpoint={digest}"
    assert found["checked"].endswith(f"pin it: {pin}")
    (found,) = row(diagnose(overrides=[*asked, pin]), "backends", "init=wham")["found"]
    assert found["checked"] == "as expected"
    assert str(weights) in json.loads((cache / "sha256.json").read_text())


def test_a_wrong_version_is_said(monkeypatch):
    real = components.installed
    monkeypatch.setattr(
        components,
        "installed",
        lambda m, d, p="": Installed("3.9", None) if d == "pycolmap" else real(m, d, p),
    )
    text = page(diagnose())
    assert "package 'pycolmap' is installed as 3.9, needed: >=4.0,<5" in text
    assert "ready for sequences with observations.npz and cameras.npz" in text


def test_the_gpu_is_named_with_its_memory(monkeypatch):
    monkeypatch.setattr(doctor, "devices", lambda: (Gpu("NVIDIA Toy", 23.65),))
    monkeypatch.setattr(doctor, "torch_cuda", lambda: "12.6")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    text = page(diagnose())
    assert "ok  0: NVIDIA Toy, 23.6 GiB" in text or "ok  0: NVIDIA Toy, 23.7 GiB" in text
    assert "torch for CUDA 12.6" in text
    assert "CUDA_VISIBLE_DEVICES='1'" in text


def test_programs_tell_their_versions(tmp_path, monkeypatch):
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\necho slurm-wlm 23.11.4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"ok  sbatch: slurm-wlm 23.11.4 ({program})" in page(diagnose())
    program.write_text("#!/bin/sh\necho no configuration >&2\nexit 1\n")
    assert f"--  sbatch: '{program}' is there, but says: no configuration" in page(diagnose())
    program.unlink()
    assert "sbatch: gives cluster jobs" in page(diagnose())


def test_json_is_the_same(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["complete"]
    assert row(findings, "packages", "torch")["version"].startswith("2.")


def test_without_any_package_it_still_speaks():
    code = """
import sys
for name in ("torch", "numpy", "omegaconf", "yaml", "cv2", "av", "scipy"):
    sys.modules[name] = None
from slamhmr.cli import main
sys.exit(main(["doctor"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2, done.stderr
    assert "--  torch: gives everything; pip install . (in the checkout of slamhmr)" in done.stdout
    assert "optimize cannot run" in done.stdout


def test_wrong_settings_are_refused(capsys):
    assert cli.main(["doctor", "options.wham.chekpoint=x"]) == 2
    assert "did you mean 'checkpoint'" in capsys.readouterr().err


def test_a_sequence_is_asked_as_optimize_would(tmp_path, capsys):
    assert cli.main(["doctor", "--seq", str(tmp_path / "none")]) == 2
    asked = capsys.readouterr().out
    assert cli.main(["optimize", "--seq", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.removeprefix("slamhmr: error: ") in asked
    clip = write_sequence(tmp_path / "clip", initial=False)
    assert cli.main(["doctor", "--seq", str(clip)]) == 0
    assert capsys.readouterr().out.endswith(f"{clip}: nothing is missing, optimize can begin\n")
    assert cli.main(["doctor", "--seq", str(clip), "slam=droid"]) == 2
    assert f"{clip}: 7 things are missing, nothing was started" in capsys.readouterr().out
