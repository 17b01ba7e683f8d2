"""Products with the Jacobian of points on a tree of joints, without ever writing it out.

A point that rides on joint j moves as A_f S_j d: S_j is the twist of joint j about the frame's
origin (angular, linear), A_f = [-[x_f]x, I] turns a twist into the point's velocity. So J' M J for
a block-diagonal M needs one 6 x 6 sum per joint, over the points it moves, and two products of thin
matrices per frame: the composite inertias of rigid-body dynamics (Featherstone 2008, chapter 6).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.manifolds import skew
from slamhmr.solve.problem import Articulation

TWIST = 6  # angular, linear


@dataclass(frozen=True)
class Twists:
    """An articulation in twists; joint 0 stands for the translation, the tree's joints follow."""

    basis: Float[Tensor, "T 6 d"]  # columns: twist of every unknown
    arms: Float[Tensor, "T F 3"]  # points about the frame's origin
    points: Float[Tensor, "T F 3 6"]  # velocity of every point from a twist
    moves: Float[Tensor, "C F"]  # 1 where joint c moves point f
    above: Float[Tensor, "d d"]  # 1 where row's joint is above the column's, or the same
    below: Float[Tensor, "d d"]  # 1 where it is strictly below

    def span(self, first: int, length: int) -> "Twists":
        """The same of some frames."""
        kept = slice(first, first + length)
        return Twists(
            self.basis[kept], self.arms[kept], self.points[kept], self.moves, self.above, self.below
        )

    def by_joint(self) -> Float[Tensor, "T C 6 3"]:
        """The basis, joint by joint."""
        frames = len(self.basis)
        return self.basis.reshape(frames, TWIST, -1, 3).permute(0, 2, 1, 3)


def twists(articulation: Articulation) -> Twists:
    """Twists about the first joint of every frame."""
    joints, sample = articulation.joints, articulation.points
    frames, count = joints.shape[:2]
    origin = joints[:, :1]
    basis = sample.new_zeros(frames, TWIST, 3 * (count + 1))
    basis[:, 3, 0] = basis[:, 4, 1] = basis[:, 5, 2] = 1.0
    turning = articulation.axes  # (T, J, 3, 3)
    linear = skew(joints - origin) @ turning
    basis[:, :3, 3:] = turning.transpose(1, 2).reshape(frames, 3, -1)
    basis[:, 3:, 3:] = linear.transpose(1, 2).reshape(frames, 3, -1)
    arms = articulation.points - origin
    points = sample.new_zeros(*arms.shape, TWIST)
    points[..., :3] = -skew(arms)
    points[..., 0, 3] = points[..., 1, 4] = points[..., 2, 5] = 1.0
    moves = torch.cat([torch.ones_like(articulation.moves[:1]), articulation.moves])
    above = torch.ones(count + 1, count + 1, dtype=torch.bool, device=sample.device)
    above[1:, 1:] = articulation.above
    above[1:, 0] = False
    same = torch.eye(count + 1, dtype=torch.bool, device=sample.device)

    def spread(mask: Tensor) -> Tensor:
        return mask.repeat_interleave(3, 0).repeat_interleave(3, 1).to(sample)

    return Twists(basis, arms, points, moves.to(sample), spread(above), spread(above.T & ~same))


def rows(articulation: Articulation) -> Float[Tensor, "T F3 d"]:
    """The Jacobian itself, point by point: for tests, and for the few points of a posterior."""
    found = twists(articulation)
    dense = found.points @ found.basis[:, None]  # (T, F, 3, d)
    moved = found.moves.T.repeat_interleave(3, 1)  # (F, d)
    return (dense * moved[:, None]).flatten(start_dim=1, end_dim=2)


def summed_twists(found: Twists, values: Float[Tensor, "T F 3 m"]) -> Float[Tensor, "T C 6 m"]:
    """Sum of A_f' V_f over the points that each joint moves."""
    frames, _, _, width = values.shape
    on_twists = found.points.mT @ values  # (T, F, 6, m)
    summed = found.moves @ on_twists.reshape(frames, -1, TWIST * width)
    return summed.reshape(frames, -1, TWIST, width)


def transposed_product(found: Twists, summed: Float[Tensor, "T C 6 m"]) -> Float[Tensor, "T d m"]:
    """J' V, from `summed_twists` of V."""
    return (found.by_joint().mT @ summed).flatten(start_dim=1, end_dim=2)


def inertias(
    here: Twists, there: Twists, weights: Float[Tensor, "T F 3 3"]
) -> Float[Tensor, "T C 6 6"]:
    """Sum of A_here' M A_there over the points that each joint moves."""
    frames = len(weights)
    pulled = here.points.mT @ (weights @ there.points)  # (T, F, 6, 6)
    return (here.moves @ pulled.reshape(frames, -1, TWIST**2)).reshape(frames, -1, TWIST, TWIST)


def isotropic_inertias(
    here: Twists, there: Twists, weights: Float[Tensor, "T F"]
) -> Float[Tensor, "T C 6 6"]:
    """The same for multiples m of the identity: of 16 sums per joint instead of 36.

    A' m A = m [[(x.y) I - y x', [x]x], [[y]x', I]], x here, y there.
    """
    x, y = here.arms, there.arms
    frames, count = weights.shape
    outer = x[..., :, None] * y[..., None, :]
    parts = torch.cat([weights.new_ones(frames, count, 1), x, y, outer.flatten(2)], dim=-1)
    sums = here.moves @ (weights[..., None] * parts)  # (T, C, 16)
    mass, first, second = sums[..., 0], sums[..., 1:4], sums[..., 4:7]
    moment = sums[..., 7:].reshape(*mass.shape, 3, 3)
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    inertia = weights.new_empty(*mass.shape, TWIST, TWIST)
    trace = moment.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    inertia[..., :3, :3] = trace[..., None, None] * eye - moment.mT
    inertia[..., :3, 3:] = skew(first)
    inertia[..., 3:, :3] = -skew(second)
    inertia[..., 3:, 3:] = mass[..., None, None] * eye
    return inertia


def carried(inertia: Float[Tensor, "T C 6 6"], there: Twists) -> Float[Tensor, "T 6 d"]:
    """Per joint its inertia times its twists."""
    frames = len(inertia)
    return (inertia @ there.by_joint()).permute(0, 2, 1, 3).reshape(frames, TWIST, -1)


def quadratic_product(
    here: Twists, there: Twists, inertia: Float[Tensor, "T C 6 6"], *, same_frame: bool
) -> Float[Tensor, "T d d"]:
    """J_here' M J_there from `inertias`; symmetric where both are of the same frame."""
    product = here.basis.mT @ carried(inertia, there)  # row's joint above that of the column
    product *= here.above
    if same_frame:
        return product.addcmul_(product.mT.clone(), here.below)
    other = carried(inertia.mT, here).mT @ there.basis
    return product.addcmul_(other, here.below)


def stretch(
    articulation: Articulation, gradient: Float[Tensor, "T F 3"]
) -> Float[Tensor, "T J 3 3"]:
    """Curvature of each joint's rotation that Gauss-Newton leaves out; never negative.

    Turning joint j by w takes a point at arm a to a + w x a + w x (w x a) / 2, so the energy's
    gradient q on the point adds (q.w)(a.w) - (q.a)|w|^2. Where q pulls outwards, as on a limb
    too short for its keypoint, first derivatives vanish and this is all there is: it is kept as
    -(q.a) |w across a|^2.
    """
    pairs = articulation.pairs
    joint, point = articulation.moves.nonzero(as_tuple=True) if pairs is None else pairs
    arms = articulation.points[:, point] - articulation.joints[:, joint]
    pull = (-(gradient[:, point] * arms).sum(dim=-1)).clamp_min(0.0)
    squared = (arms**2).sum(dim=-1).clamp_min(1e-12)
    outer = (pull / squared)[..., None, None] * arms[..., :, None] * arms[..., None, :]
    parts = torch.cat([pull[..., None], outer.flatten(start_dim=2)], dim=-1)
    frames, joints = articulation.joints.shape[:2]
    summed = parts.new_zeros(frames, joints, 10).index_add_(1, joint, parts)
    eye = torch.eye(3, dtype=parts.dtype, device=parts.device)
    curvature = summed[..., :1, None] * eye - summed[..., 1:].reshape(frames, joints, 3, 3)
    return articulation.axes.mT @ curvature @ articulation.axes
