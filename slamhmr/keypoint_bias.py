"""Keypoints that are off the same way in every frame: unknowns of the posterior alone.

A detector puts a hip, an eye, a heel where its training data had them, which is not where the body
model has them. Taken as independent from frame to frame such errors average out over a clip, and
its length seems to tell the shape; they do not, and it does not. So every keypoint of every person
gets a constant offset in the image, in units of the person's apparent size, with a prior about
zero. At a solved state the offsets are zero and only their information counts.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from slamhmr.scene import Scene
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.problem import (
    BorderResidual,
    ChainShape,
    FeatureGroup,
    Residual,
    RigidBorder,
    Step,
    Window,
)


@dataclass(frozen=True)
class BiasedProblem:
    """A stage's energy with two more shared unknowns per keypoint and person.

    They come after all others in the border; in a chain, before the drift, whose columns must be
    the last. `sigma`: of the offset along each image axis, share of the person's size.
    """

    unbiased: SceneProblem
    sigma: float

    @property
    def count(self) -> int:
        """Offsets of one person."""
        return 2 * self.unbiased.evidence[0].keypoint_count

    @property
    def place(self) -> slice:
        """Columns of the offsets in a chain."""
        start = self.unbiased.layout.moving
        return slice(start, start + self.count)

    @property
    def kept(self) -> Int[Tensor, "g"]:
        """Columns of a chain that are not offsets."""
        place, width = self.place, self.unbiased.layout.chain_width + self.count
        return torch.tensor([*range(place.start), *range(place.stop, width)], dtype=torch.int64)

    @property
    def chains(self) -> list[ChainShape]:
        """One chain per person, as wide as before plus the offsets."""
        return [
            replace(shape, border_columns=self._columns(index, shape.border_columns))
            for index, shape in enumerate(self.unbiased.chains)
        ]

    @property
    def border_count(self) -> int:
        """Shared unknowns."""
        return self.unbiased.border_count + self.count * len(self.unbiased.evidence)

    def _columns(self, person: int, columns: Int[Tensor, "g"]) -> Int[Tensor, "h"]:
        first = self.unbiased.border_count + person * self.count
        own = torch.arange(first, first + self.count)
        return torch.cat([columns[: self.place.start], own, columns[self.place.start :]])

    def window(
        self, state: Scene, chain: int, start: int, stop: int, *, derivatives: bool
    ) -> Window:
        """The stage's window; image points move with the offsets too."""
        window = self.unbiased.window(state, chain, start, stop, derivatives=derivatives)
        if not derivatives:
            return window
        residuals = [self._offset(r) if r.name == "reprojection" else r for r in window.residuals]
        groups = {name: self._shifted(group) for name, group in window.groups.items()}
        return replace(window, residuals=residuals, groups=groups)

    def _shifted(self, group: FeatureGroup) -> FeatureGroup:
        """The group with what moves in the chain's last columns further on by the offsets."""

        def further(rigid: RigidBorder) -> RigidBorder:
            columns = rigid.columns
            if columns.start < self.place.start:
                return rigid
            moved = slice(columns.start + self.count, columns.stop + self.count)
            return replace(rigid, columns=moved)

        border, columns, start = group.border, group.border_slice, self.place.start
        if border is not None and columns is not None and columns.stop > start:
            place, added = start - columns.start, border.new_zeros(*border.shape[:-1], self.count)
            border = torch.cat([border[..., :place], added, border[..., place:]], dim=-1)
            columns = slice(columns.start, columns.stop + self.count)
        rigid = tuple(further(each) for each in group.rigid)
        return replace(group, border=border, border_slice=columns, rigid=rigid)

    def _offset(self, residual: Residual) -> Residual:
        """Its derivative by the offsets beside that by the focal length, if that is free."""
        frames, elements, _ = residual.value.shape
        before = residual.border_slice
        start = self.place.start if before is None else before.start
        place = slice(start, self.place.stop)
        derivative = residual.value.new_zeros(frames, elements, 2, place.stop - place.start)
        if before is not None and residual.border_derivative is not None:
            derivative[..., : before.stop - before.start] = residual.border_derivative
        unit = 1.0 / self.unbiased.settings["reprojection"].sigma
        own = derivative[..., self.place.start - start :].view(frames, elements, 2, elements, 2)
        for element in range(elements):
            own[:, element, :, element] = unit * torch.eye(2, dtype=derivative.dtype)
        return replace(residual, border_derivative=derivative, border_slice=place)

    def border(self, state: Scene) -> list[BorderResidual]:
        """The stage's terms on shared unknowns, and the prior of the offsets."""
        residuals = self.unbiased.border(state)
        added = self.count * len(self.unbiased.evidence)
        wide = [
            r if r.derivative is None
            else replace(r, derivative=torch.nn.functional.pad(r.derivative, (0, added)))
            for r in residuals
        ]  # fmt: skip
        value = state.log_scale.new_zeros(added)
        derivative = value.new_zeros(added, self.border_count)
        derivative[:, self.unbiased.border_count :] = torch.eye(added) / self.sigma
        return [*wide, BorderResidual("keypoint_bias", value, 1.0, derivative)]

    def retract(self, state: Scene, step: Step) -> Scene:
        """The state moved by a step; offsets are no part of it."""
        inner = Step(step.chains, step.border[: self.unbiased.border_count])
        return self.unbiased.retract(state, inner)
