"""A stage's checkpoint: how far it has come, in a hidden npz of the run folder, without pickles."""

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slamhmr.artifacts import STAMP, Arrays, from_arrays, read_arrays, to_arrays, write_arrays
from slamhmr.errors import InputError
from slamhmr.preemption import WATCH
from slamhmr.scene import Person, Scene
from slamhmr.solve.levenberg import Progress, Summary
from slamhmr.stages import Reached
from slamhmr.types import SceneState

LOG = logging.getLogger(__name__)
EVERY_S = 60.0  # seconds of solving between checkpoints that nobody has asked for
NUMBERS = "numbers"  # key of what is no array, JSON
SCENES = ("scene", "start", "origin")


class Checkpoint:
    """The checkpoint of one stage, bound to the stamp of the file that the stage makes."""

    def __init__(self, path: Path, stamp: dict[str, str]) -> None:
        self.path = path
        self.stamp = stamp
        self._written = time.monotonic()

    def keep(self, reached: Reached) -> None:
        """Called after every iteration: write if it is time, or if the process is to stop.

        Raises Preempted after writing, where somebody has asked for that.
        """
        if WATCH.asked != "" or time.monotonic() - self._written > EVERY_S:
            write_arrays(self.path, {**_arrays(reached), STAMP: np.array(json.dumps(self.stamp))})
            self._written = time.monotonic()
            LOG.info("%s: checkpoint written", self.path.name)
        WATCH.obey()

    def read(self) -> Reached | None:
        """What was reached before; None without a checkpoint, or where it is of something else."""
        if not self.path.exists():
            return None
        try:
            arrays = read_arrays(self.path)
            fits = json.loads(str(arrays[STAMP])) == self.stamp
            reached = _reached(arrays, str(self.path)) if fits else None
        except (InputError, KeyError, ValueError, TypeError) as e:
            LOG.warning("checkpoint '%s' cannot be read and is left out: %s", self.path.name, e)
            return None
        if reached is None:
            LOG.info("checkpoint '%s' is of other settings, inputs or code", self.path.name)
            return None
        done = sum(s.iterations for s in reached.summaries)
        now = 0 if reached.progress is None else reached.progress.iteration
        LOG.info("going on from '%s', after %d iterations", self.path.name, done + now)
        return reached

    def remove(self) -> None:
        """The stage is done."""
        self.path.unlink(missing_ok=True)


def _arrays(reached: Reached) -> Arrays:
    arrays = {f"state.{key}": array for key, array in to_arrays(reached.state).items()}
    for name in SCENES:
        arrays.update(_of_scene(name, getattr(reached, name)))
    numbers: dict[str, Any] = {
        "round": reached.round,
        "tightened": reached.tightened,
        "seconds": reached.seconds,
        "summaries": [dataclasses.asdict(summary) for summary in reached.summaries],
    }
    if reached.progress is not None:
        arrays.update(_of_scene("progress", reached.progress.state))
        own = {f.name: getattr(reached.progress, f.name) for f in dataclasses.fields(Progress)}
        numbers["progress"] = {name: value for name, value in own.items() if name != "state"}
    return {**arrays, NUMBERS: np.array(json.dumps(numbers))}


def _reached(arrays: Arrays, where: str) -> Reached:
    numbers = json.loads(str(arrays[NUMBERS]))
    progress = None
    if "progress" in numbers:
        progress = Progress(_scene(arrays, "progress"), **numbers["progress"])
    prefix = "state."
    own = {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
    return Reached(
        state=from_arrays(own, SceneState, where),
        **{name: _scene(arrays, name) for name in SCENES},
        round=numbers["round"],
        tightened=numbers["tightened"],
        summaries=tuple(Summary(**summary) for summary in numbers["summaries"]),
        progress=progress,
        seconds=numbers["seconds"],
    )


def _of_scene(name: str, scene: Scene) -> Arrays:
    """The arrays of a scene, as "name.field" and "name.people.0.field"."""
    return {f"{name}.{key}": tensor.detach().cpu().numpy() for key, tensor in _tensors(scene)}


def _tensors(scene: Scene) -> Iterator[tuple[str, Tensor]]:
    for field in dataclasses.fields(Scene):
        value = getattr(scene, field.name)
        if field.name == "people":
            for row, person in enumerate(value):
                for own in dataclasses.fields(Person):
                    yield f"people.{row}.{own.name}", getattr(person, own.name)
        elif value is not None:
            yield field.name, value


def _scene(arrays: Arrays, name: str) -> Scene:
    fields = [field.name for field in dataclasses.fields(Scene) if field.name != "people"]
    values = {
        field: torch.from_numpy(arrays[f"{name}.{field}"])
        for field in fields
        if f"{name}.{field}" in arrays
    }
    people: list[Person] = []
    while f"{name}.people.{len(people)}.pelvis" in arrays:
        prefix = f"{name}.people.{len(people)}."
        own = {
            f.name: torch.from_numpy(arrays[prefix + f.name]) for f in dataclasses.fields(Person)
        }
        people.append(Person(**own))
    jitter = values.pop("jitter_information", None)
    return Scene(people=tuple(people), jitter_information=jitter, **values)
