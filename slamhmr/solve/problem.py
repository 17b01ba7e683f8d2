"""What a least-squares problem over chains of frames is made of: features, residuals, steps.

A chain is a sequence of T frames with d unknowns each; a border of shared unknowns is seen by
every chain. Residuals are functions of *features* (points, rotations ...) of up to `MAX_STENCIL`
consecutive frames and, explicitly, of the border. The chain rule from features to unknowns is
applied here and in `assemble.py`, nowhere else. Energy: E = 1/2 sum w rho(|r|^2).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_STENCIL = 3  # frames that one residual may touch; sets the half band of the normal equations


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one chain and how they move with its unknowns.

    F features of D dimensions. With `rows`, features depend on all d unknowns of their frame:
    `rows(start, stop)` gives the Jacobian (stop - start, F * D, d). Without, feature f is itself
    the unknowns at columns `column + f * D` ... of the frame. `border` is the Jacobian (T, F * D,
    g) with respect to the chain's g border columns.
    """

    feature_count: int
    dimension: int
    column: int = 0
    rows: Callable[[int, int], Tensor] | None = None
    border: Float[Tensor, "T FD g"] | None = None


@dataclass(frozen=True)
class Residual:
    """One term on one chain: E elements per frame with R rows each, on S consecutive frames.

    Element e at frame t reads feature `elements[e]` of `group` at frames t ... t + S - 1 and has
    derivative `derivative[i, t, e]` (R, D) with respect to that of frame t + i.
    `border_derivative` is the *explicit* dependence on the chain's border, beyond that of the
    features. `weight` is 0 where the element does not exist. `kernel` is the scale mu of
    Geman-McClure, None for a quadratic.
    """

    name: str
    group: str
    elements: Int[Tensor, "E"]
    value: Float[Tensor, "T E R"]
    weight: Float[Tensor, "T E"]
    derivative: Float[Tensor, "S T E R D"] | None = None
    border_derivative: Float[Tensor, "T E R g"] | None = None
    kernel: float | None = None

    def energy(self) -> Float[Tensor, ""]:
        """1/2 sum w rho(|r|^2); infinite if a residual that counts is not finite."""
        squared = (self.value**2).sum(dim=-1)
        present = self.weight > 0
        if not torch.isfinite(squared[present]).all():
            return torch.full_like(squared.sum(), torch.inf)
        return 0.5 * (self.weight * robust(squared, self.kernel))[present].sum()


@dataclass(frozen=True)
class BorderResidual:
    """A term on the border alone: R rows with Jacobian (R, G) on all G border columns."""

    name: str
    value: Float[Tensor, "R"]
    weight: float
    derivative: Float[Tensor, "R G"] | None = None

    def energy(self) -> Float[Tensor, ""]:
        """1/2 w |r|^2."""
        return 0.5 * self.weight * (self.value**2).sum()


@dataclass(frozen=True)
class Chain:
    """All residuals of one chain; `border_columns` are its g columns among the border's G."""

    frame_count: int
    unknowns: int
    border_columns: Int[Tensor, "g"]
    groups: dict[str, FeatureGroup]
    residuals: list[Residual]


@dataclass(frozen=True)
class Linearisation:
    """A problem at one point: chains, and residuals on the border."""

    chains: list[Chain]
    border_count: int
    border_residuals: list[BorderResidual] = field(default_factory=list)

    def energies(self) -> dict[str, float]:
        """Energy of every term, summed over chains."""
        total: dict[str, float] = {}
        terms: list[Residual | BorderResidual] = [
            r for chain in self.chains for r in chain.residuals
        ]
        for residual in [*terms, *self.border_residuals]:
            total[residual.name] = total.get(residual.name, 0.0) + float(residual.energy())
        return total


@dataclass(frozen=True)
class Step:
    """Increments of all unknowns: per chain (T, d), and of the border (G,)."""

    chains: list[Float[Tensor, "_ d"]]
    border: Float[Tensor, "G"]

    def norm(self) -> float:
        """Largest absolute increment."""
        parts = [*self.chains, self.border]
        return max((float(p.abs().max()) for p in parts if p.numel() > 0), default=0.0)


S = TypeVar("S")


@runtime_checkable
class Problem(Protocol[S]):
    """What Levenberg-Marquardt needs to know; the state stays opaque to it."""

    def linearise(self, state: S, *, derivatives: bool) -> Linearisation:
        """Residuals at `state`; with their derivatives, or only their values."""
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
