"""HuMoR (Rempe et al. 2021): a conditional variational autoencoder of one step of human motion.

Attribute names are the official state-dict names. Source: github.com/davrempe/humor at fc6ef84, as
described in prose; eval mode only, configuration of train_humor.cfg. 30 frames/s, z up, velocities
per second. Rotations enter as matrices; deltas leave as rotation vectors that turn from the left.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.checkpoints import load_weights

LATENT = 48
STATE = 339
BODY_JOINTS = 21
CONTACTS = 9  # joints that may touch something: logits
NORM_GROUPS = 16
FPS = 30.0
Rotations: TypeAlias = Float[Tensor, "*batch 3 3"]
Heading: TypeAlias = Callable[[Tensor], Tensor]  # root orientation -> rotation about z


@dataclass(frozen=True)
class State:
    """Motion state of one frame; `joints` are the 22 SMPL joints, `trans` is SMPL's transl."""

    trans: Float[Tensor, "*batch 3"]
    trans_vel: Float[Tensor, "*batch 3"]
    root_orient: Float[Tensor, "*batch 3 3"]
    root_orient_vel: Float[Tensor, "*batch 3"]
    pose_body: Float[Tensor, "*batch 21 3 3"]
    joints: Float[Tensor, "*batch 22 3"]
    joints_vel: Float[Tensor, "*batch 22 3"]

    def vector(self) -> Float[Tensor, "*batch 339"]:
        """The 339 numbers in the order of the fields, matrices row by row."""
        batch = self.trans.dim() - 1
        return torch.cat([getattr(self, f.name).flatten(batch) for f in fields(self)], dim=-1)

    @classmethod
    def from_vector(cls, vector: Float[Tensor, "*batch 339"]) -> "State":
        """Inverse of `vector`."""
        shapes = ((3,), (3,), (3, 3), (3,), (BODY_JOINTS, 3, 3), (22, 3), (22, 3))
        sizes = [torch.Size(shape).numel() for shape in shapes]
        parts = torch.split(vector, sizes, dim=-1)
        batch = vector.shape[:-1]
        return cls(*(p.reshape(*batch, *shape) for p, shape in zip(parts, shapes, strict=True)))

    def __getitem__(self, index: object) -> "State":
        return State(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Frame:
    """Canonical frame of a person: transl above the origin, right along x.

    transl -> R (transl + shift); joints -> R (joint + shift - pivot) + pivot, with `pivot` the root
    joint's offset from transl in the ground plane: SMPL's root joint does not turn about transl.
    """

    rotation: Float[Tensor, "*batch 3 3"]
    shift: Float[Tensor, "*batch 3"]
    pivot: Float[Tensor, "*batch 3"]

    def apply(self, state: State) -> State:
        """The state in the canonical frame."""
        joints = state.joints + (self.shift - self.pivot)[..., None, :]
        turned = _turned(state, self.rotation, state.trans + self.shift, joints)
        return replace(turned, joints=turned.joints + self.pivot[..., None, :])

    def undo(self, state: State) -> State:
        """The state in the frame that `apply` takes."""
        back = self.rotation.transpose(-1, -2)
        joints = state.joints - self.pivot[..., None, :]
        turned = _turned(state, back, state.trans, joints)
        return replace(
            turned,
            trans=turned.trans - self.shift,
            joints=turned.joints + (self.pivot - self.shift)[..., None, :],
        )


class Layers(nn.Module):
    """Linear, then [group normalisation, ReLU, linear] as often as there are widths."""

    def __init__(self, widths: tuple[int, ...], skip: int = 0) -> None:
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(widths[0] + skip, widths[1])])
        for inner, outer in zip(widths[1:], widths[2:], strict=False):
            norm = nn.GroupNorm(NORM_GROUPS, inner)
            self.net.extend([norm, nn.ReLU(), nn.Linear(inner + skip, outer)])

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Output; `code` is concatenated to the input of every linear layer."""
        flat, batch = x.flatten(end_dim=-2), x.shape[:-1]
        skip = None if code is None else code.flatten(end_dim=-2)
        for layer in self.net:
            if isinstance(layer, nn.Linear) and skip is not None:
                flat = torch.cat([flat, skip], dim=-1)
            flat = layer(flat)
        return flat.reshape(*batch, flat.shape[-1])


class HuMoR(nn.Module):
    """The released network with its prior, posterior (`encoder`) and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Layers((2 * STATE, 1024, 1024, 1024, 1024, 2 * LATENT))
        self.decoder = Layers((STATE, 1024, 1024, 512, 216), skip=LATENT)
        self.prior_net = Layers((STATE, 1024, 1024, 1024, 1024, 2 * LATENT))

    def prior(
        self, past: Float[Tensor, "*batch 339"]
    ) -> tuple[Float[Tensor, "*batch 48"], Float[Tensor, "*batch 48"]]:
        """Mean and variance of the latent step out of a canonical state."""
        mean, log_variance = self.prior_net(past).chunk(2, dim=-1)
        return mean, log_variance.exp()

    def posterior(
        self, past: Float[Tensor, "*batch 339"], present: Float[Tensor, "*batch 339"]
    ) -> tuple[Float[Tensor, "*batch 48"], Float[Tensor, "*batch 48"]]:
        """Mean and variance of the latent step between two states in the frame of the first."""
        mean, log_variance = self.encoder(torch.cat([past, present], dim=-1)).chunk(2, dim=-1)
        return mean, log_variance.exp()

    def decode_raw(
        self, past: Float[Tensor, "*batch 339"], code: Float[Tensor, "*batch 48"]
    ) -> Float[Tensor, "*batch 216"]:
        """Change of the state (rotations as rotation vectors, 207) and 9 contact logits."""
        return self.decoder(past, code)

    def decode(
        self, past: Float[Tensor, "*batch 339"], code: Float[Tensor, "*batch 48"]
    ) -> tuple[State, Float[Tensor, "*batch 9"]]:
        """Next state, in the frame of the past one, and contact logits."""
        return changed(State.from_vector(past), self.decode_raw(past, code))


def changed(
    state: State, raw: Float[Tensor, "*batch 216"]
) -> tuple[State, Float[Tensor, "*batch 9"]]:
    """State after the decoder's change, rotations turned from the left, and contact logits."""
    batch, sizes = raw.shape[:-1], [3, 3, 3, 3, 3 * BODY_JOINTS, 66, 66, CONTACTS]
    trans, vel, turn, turn_vel, pose, joints, joints_vel, contacts = torch.split(raw, sizes, dim=-1)
    next_state = State(
        state.trans + trans,
        state.trans_vel + vel,
        roma.rotvec_to_rotmat(turn) @ state.root_orient,
        state.root_orient_vel + turn_vel,
        roma.rotvec_to_rotmat(pose.reshape(*batch, BODY_JOINTS, 3)) @ state.pose_body,
        state.joints + joints.reshape(*batch, 22, 3),
        state.joints_vel + joints_vel.reshape(*batch, 22, 3),
    )
    return next_state, contacts


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict: 50 entries."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in HuMoR().state_dict().items()}


def load_humor(path: Path, *, dtype: torch.dtype = torch.float32) -> HuMoR:
    """Network with converted weights, in eval mode. Raises CheckpointError."""
    tensors, _ = load_weights(path, state_shapes())
    with torch.device("meta"):
        network = HuMoR()
    network.load_state_dict(tensors, assign=True)
    return network.to(dtype).eval().requires_grad_(False)


@dataclass(frozen=True)
class RollOut:
    """States of S steps in the frame of the start, contacts, and the prior at each step."""

    states: State  # batch dimensions (B, S)
    contact_logits: Float[Tensor, "B S 9"]
    prior_mean: Float[Tensor, "B S 48"]
    prior_variance: Float[Tensor, "B S 48"]


def heading_removal(root_orient: Rotations) -> Rotations:
    """Rotation about z after which the body's right (-x of the root) points along world x.

    Without arc cosine and cross product. The official code calls `torch.cross` without a dimension,
    which crosses along the batch if that is exactly 3 long.
    """
    right = nn.functional.normalize(-root_orient[..., :2, 0], dim=-1)
    return _about_z(right[..., 0], -right[..., 1])


def official_heading_removal(root_orient: Rotations) -> Rotations:
    """`heading_removal` with the official 1e-6 in two denominators: up to 3e-5 rad short.

    For parity only: near alignment, the usual case in a roll-out, the arc cosine costs float32 half
    of its digits.
    """
    right = -root_orient[..., :2, 0]
    angle = torch.acos(right[..., 0] / (right.norm(dim=-1) + 1e-6))
    angle = -angle * right[..., 1] / (right[..., 1].abs() + 1e-6)
    return _about_z(angle.cos(), angle.sin())


def canonical_frame(state: State, heading: Heading = heading_removal) -> Frame:
    """Frame of each state on its own."""
    shift = -_on_ground(state.trans)
    return Frame(heading(state.root_orient), shift, _pivot(state))


def canonical_pairs(
    sequence: State, heading: Heading = heading_removal
) -> tuple[Float[Tensor, "B S 339"], Float[Tensor, "B S 339"]]:
    """Consecutive states of sequences (B, S + 1), each pair in the frame of its first.

    The pivot is that of the sequence's first state: of one body, it does not change.
    """
    past, present = sequence[:, :-1], sequence[:, 1:]
    frame = canonical_frame(past, heading)
    frame = replace(frame, pivot=frame.pivot[:, :1].expand_as(frame.pivot))
    return frame.apply(past).vector(), frame.apply(present).vector()


def infer(
    network: HuMoR, sequence: State, heading: Heading = heading_removal
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prior mean and variance, posterior mean and variance of every step of a world sequence.

    `sequence` has batch dimensions (B, S + 1), the four outputs are (B, S, 48).
    """
    past, present = canonical_pairs(sequence, heading)
    return *network.prior(past), *network.posterior(past, present)


def roll_out(
    network: HuMoR,
    start: State,
    steps: int,
    *,
    codes: Float[Tensor, "B S 48"] | None = None,
    canonicalize: bool = False,
    heading: Heading = heading_removal,
) -> RollOut:
    """Follow the decoder from a state for `steps` frames, with the prior's mean or given `codes`.

    `start` (batch (B,)) must be canonical already, unless `canonicalize`; the states come back in
    its frame either way.
    """
    frame = canonical_frame(start, heading)
    if not canonicalize:
        identity = torch.eye(3).to(start.trans).expand_as(start.root_orient)
        frame = replace(frame, rotation=identity, shift=torch.zeros_like(frame.shift))
    past = frame.apply(start)
    states: list[State] = []
    outputs: list[tuple[Tensor, Tensor, Tensor]] = []  # contact logits, prior mean and variance
    for step in range(steps):
        vector = past.vector()
        mean, variance = network.prior(vector)
        present, contact = network.decode(vector, mean if codes is None else codes[:, step])
        states.append(frame.undo(present))
        outputs.append((contact, mean, variance))
        local = replace(canonical_frame(present, heading), pivot=frame.pivot)
        past = local.apply(present)
        shift = -_on_ground(states[-1].trans)
        frame = Frame(local.rotation @ frame.rotation, shift, frame.pivot)
    stacked = State(*(torch.stack([getattr(s, f.name) for s in states], 1) for f in fields(State)))
    return RollOut(stacked, *(torch.stack(values, 1) for values in zip(*outputs, strict=True)))


def _about_z(cosine: Float[Tensor, "*batch"], sine: Float[Tensor, "*batch"]) -> Rotations:
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    rows = [cosine, -sine, zero, sine, cosine, zero, zero, zero, one]
    return torch.stack(rows, dim=-1).reshape(*cosine.shape, 3, 3)


def _on_ground(point: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return torch.cat([point[..., :2], torch.zeros_like(point[..., 2:])], dim=-1)


def _pivot(state: State) -> Float[Tensor, "*batch 3"]:
    return _on_ground(state.joints[..., 0, :] - state.trans)


def _turned(
    state: State, rotation: Rotations, trans: Float[Tensor, "*batch 3"], joints: Tensor
) -> State:
    """A state of these positions, with everything but the body pose turned."""

    def turn(vectors: Tensor) -> Tensor:
        return (rotation @ vectors[..., None])[..., 0]

    back = rotation.transpose(-1, -2)
    return State(
        turn(trans),
        turn(state.trans_vel),
        rotation @ state.root_orient,
        turn(state.root_orient_vel),
        state.pose_body,
        joints @ back,
        state.joints_vel @ back,
    )
