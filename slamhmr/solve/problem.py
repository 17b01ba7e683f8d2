"""What a least-squares problem over chains of frames is made of: features, residuals, steps.

A chain is a sequence of T frames with d unknowns each; a border of shared unknowns is seen by
every chain. Residuals are functions of *features* (points, rotations ...) of up to `MAX_STENCIL`
consecutive frames and, explicitly, of the border. A problem hands them out in windows of frames, so
that a clip of any length fits in memory. The chain rule from features to unknowns is applied in
`assemble.py`, nowhere else. Energy: E = 1/2 sum w rho(|r|^2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_STENCIL = 3  # frames that one residual may touch; sets the half band of the normal equations
REACH = MAX_STENCIL - 1


@dataclass(frozen=True)
class Articulation:
    """Jacobian of F points that ride on a tree of J joints, in closed form.

    A frame's unknowns: translation of everything (3), then a body-frame rotation of every joint
    (3 J). Joint j turns point f, where `moves[j, f]`, by (G_j d) x (X_f - X_j).
    """

    points: Float[Tensor, "T F 3"]
    joints: Float[Tensor, "T J 3"]
    axes: Float[Tensor, "T J 3 3"]  # G_j: global rotation of each joint
    moves: Bool[Tensor, "J F"]
    above: Bool[Tensor, "J J"]  # [i, j]: joint i is j itself or an ancestor of it
    # Joint and point of every True in `moves`, where they are known: else found at each use.
    pairs: tuple[Int[Tensor, "M"], Int[Tensor, "M"]] | None = None


@dataclass(frozen=True)
class RigidBorder:
    """Border columns that move all points of a frame together: a twist times a basis over time.

    Column k c + i is `basis[t, k] * twist[t, :, i]`: angular, then linear velocity of the point
    that is the frame's first joint. They must be the last columns of a chain, or its first.
    """

    columns: slice
    twist: Float[Tensor, "T 6 c"]
    basis: Float[Tensor, "T k"]


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one chain and how they move with its unknowns.

    F features of D dimensions. With `articulation` they are its points. Without, feature f is
    itself the unknowns at columns `column + f * D` ... of the frame. `border` is their own
    derivative by the border columns `border_slice` of the chain, `rigid` by further ones that
    move all points of a frame as one body (with `articulation` only).
    """

    feature_count: int
    dimension: int
    column: int = 0
    articulation: Articulation | None = None
    border: Float[Tensor, "T FD c"] | None = None
    border_slice: slice | None = None
    rigid: tuple[RigidBorder, ...] = ()


@dataclass(frozen=True)
class Residual:
    """One term on one chain: E elements per frame with R rows each, on S consecutive frames.

    Element e at frame t reads feature `elements[e]` of `group` at frames t ... t + S - 1 and has
    derivative `derivative[i, t, e]` (R, D) with respect to that of frame t + i; or, where R = D and
    all derivatives are multiples of the identity, `isotropic[i, t, e]`. A float32 derivative makes
    float32 products, which is enough for curvature. `border_derivative` is the
    *explicit* dependence on the border columns `border_slice` of the chain, beyond that of the
    features. `local` is the dependence on the frame's own eliminated unknowns (see `Window`).
    `weight` is 0 where the element does not exist. `kernel` is the scale mu of Geman-McClure, None
    for a quadratic.
    """

    name: str
    group: str
    elements: Int[Tensor, "E"]
    value: Float[Tensor, "T E R"]
    weight: Float[Tensor, "T E"]
    derivative: Float[Tensor, "S T E R D"] | None = None
    isotropic: Float[Tensor, "S T E"] | None = None
    border_derivative: Float[Tensor, "T E R c"] | None = None
    border_slice: slice | None = None
    local: Float[Tensor, "T E R l"] | None = None
    kernel: float | None = None

    def energy(self, count: int | None = None) -> Float[Tensor, ""]:
        """1/2 sum w rho(|r|^2) over the first `count` frames; infinite if any is not finite."""
        total = self.energies_by_frame()[:count].sum()
        return torch.where(torch.isfinite(total), total, torch.inf)

    def energies_by_frame(self) -> Float[Tensor, "T"]:
        """The same of each frame."""
        squared = (self.value**2).sum(dim=-1)
        terms = self.weight * robust(squared, self.kernel)
        return 0.5 * torch.where(self.weight > 0, terms, 0.0).sum(dim=-1)


def single_element(like: Tensor) -> Int[Tensor, "1"]:
    """`Residual.elements` of a term with one element: feature 0, where `like` is."""
    return torch.zeros(1, dtype=torch.int64, device=like.device)


@dataclass(frozen=True)
class BorderResidual:
    """A term on the border alone: R rows with Jacobian (R, G) on all G border columns.

    Without a derivative it only counts in the energy (its unknowns were eliminated before).
    """

    name: str
    value: Float[Tensor, "R"]
    weight: float
    derivative: Float[Tensor, "R G"] | None = None

    def energy(self) -> Float[Tensor, ""]:
        """1/2 w |r|^2."""
        return 0.5 * self.weight * (self.value**2).sum()


@dataclass(frozen=True)
class ChainShape:
    """Size of one chain; `border_columns` are its g columns among the border's G."""

    frame_count: int
    unknowns: int
    border_columns: Int[Tensor, "g"]


@dataclass(frozen=True)
class Window:
    """Residuals of one chain that begin in frames `start` ... `stop - 1`, at one state.

    All arrays begin at `start` and reach `REACH` frames beyond `stop`, or to the chain's end; what
    residuals hold beyond `stop` belongs to the next window and is left out by `count`. `local` is
    the information, of all chains, on unknowns of each frame alone that were minimised over
    beforehand (variable projection): their Schur complement is taken off.
    """

    start: int
    stop: int
    groups: dict[str, FeatureGroup]
    residuals: list[Residual]
    local: Float[Tensor, "T l l"] | None = None

    @property
    def count(self) -> int:
        """Frames in which residuals begin."""
        return self.stop - self.start

    def energies(self) -> dict[str, Float[Tensor, ""]]:
        """Energy of every term."""
        total: dict[str, Tensor] = {}
        for residual in self.residuals:
            energy = residual.energy(self.count)
            total[residual.name] = (
                total[residual.name] + energy if residual.name in total else energy
            )
        return total


@dataclass(frozen=True)
class Step:
    """Increments of all unknowns: per chain (T, d), and of the border (G,)."""

    chains: list[Float[Tensor, "_ d"]]
    border: Float[Tensor, "G"]

    def scaled(self, factor: float) -> "Step":
        """All increments times a factor."""
        return Step([factor * part for part in self.chains], factor * self.border)

    def norm(self) -> float:
        """Largest absolute increment; NaN if any is NaN."""
        parts = [*self.chains, self.border]
        largest = [part.abs().max() for part in parts if part.numel() > 0]
        return float(torch.stack(largest).max()) if len(largest) > 0 else 0.0


S = TypeVar("S")


@runtime_checkable
class Problem(Protocol[S]):
    """What Levenberg-Marquardt needs to know; the state stays opaque to it."""

    @property
    def chains(self) -> Sequence[ChainShape]:
        """Sizes of all chains."""
        ...

    @property
    def border_count(self) -> int:
        """Shared unknowns G."""
        ...

    def window(self, state: S, chain: int, start: int, stop: int, *, derivatives: bool) -> Window:
        """Residuals of one chain that begin in [start, stop); with derivatives, or only values."""
        ...

    def border(self, state: S) -> list[BorderResidual]:
        """Residuals on the border alone."""
        ...

    def retract(self, state: S, step: Step) -> S:
        """The state moved by `step` on its manifold."""
        ...


def robust(squared: Float[Tensor, "*shape"], mu: float | None) -> Float[Tensor, "*shape"]:
    """Geman-McClure's rho(u) = mu u / (mu + u), u the squared whitened norm; u without mu."""
    return squared if mu is None else mu * squared / (mu + squared)


def robust_weight(squared: Float[Tensor, "*shape"], mu: float | None) -> Float[Tensor, "*shape"]:
    """Its derivative (mu / (mu + u))^2: the weight in iteratively reweighted least squares."""
    return torch.ones_like(squared) if mu is None else (mu / (mu + squared)) ** 2
