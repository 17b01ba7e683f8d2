"""HuMoR as a term of multiple shooting: one residual per step, with its Jacobian in closed form.

All steps of a clip are evaluated in one batch; nothing is rolled out. The latent step z is held
fixed while the states move, as in block descent (`transition_residual`; the mean of the posterior
where none is given), or is that mean wherever they move (`following_residual`).
"""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.humor import (
    BODY_JOINTS,
    LATENT,
    STATE,
    Frame,
    HuMoR,
    Layers,
    State,
    canonical_frame,
    changed,
)
from priors.so3 import inverse_right_jacobian, left_jacobian

TANGENT = 207  # transl 3, its velocity 3, root 3, its velocity 3, body 63, joints 66, theirs 66
ROOT = slice(6, 9)  # of the tangent
TURNS = [6, *range(12, 75, 3)]  # where the tangent's 22 rotations begin
VECTORS = [0, 3, 9, *range(75, TANGENT, 3)]  # and its 47 vectors
POSITIONS = [0, *range(75, 141, 3)]  # those that move with the origin
MATRICES = [6, *range(18, 207, 9)]  # where the state's 22 matrices begin
PLAIN = [*range(6), *range(15, 18), *range(207, 339)]  # the state's other numbers
PLAIN_TANGENT = [*range(6), *range(9, 12), *range(75, TANGENT)]


@dataclass(frozen=True)
class Transition:
    """Residuals of T steps: state beyond the decoder's (207), latent beyond the prior's (48).

    The Jacobians are by increments of the past and the present state: vectors added in world axes,
    rotations R exp(d). 0.85 MB per step in float64: evaluate long clips in pieces.
    """

    code: Float[Tensor, "T 48"]  # z, held fixed
    state: Float[Tensor, "T 207"]  # m, m/s, rad, rad/s; canonical axes, rotations in the body's
    latent: Float[Tensor, "T 48"]  # (z - mean) / standard deviation
    state_by_past: Float[Tensor, "T 207 207"]
    state_by_present: Float[Tensor, "T 207 207"]
    latent_by_past: Float[Tensor, "T 48 207"]


def transition_residual(
    network: HuMoR,
    past: State,
    present: State,
    pivot: Float[Tensor, "3"],
    code: Float[Tensor, "T 48"] | None = None,
) -> Transition:
    """x_t - f(x_{t-1}, z_t) and (z_t - mu(x_{t-1})) / sigma(x_{t-1}) of T steps of one body.

    States are in a world with z up and the floor at 0, at 30 frames per second, batch (T,);
    `pivot` is the root joint's rest position less SMPL's origin, of which x and y matter. The
    canonical frame moves with the past state and that is part of the Jacobian, so turning or
    moving everything about z changes nothing. Source: Rempe et al. 2021, equations 3 to 6; SLAHMR
    rolls the states out of z instead.
    """
    frame = _frame(past, pivot)
    before, after = frame.apply(past), frame.apply(present)
    if code is None:
        code = network.posterior(before.vector(), after.vector())[0]
    rows = _canonical(network, before, after, code)
    past_rows, present_rows = _to_world(frame, before, after, rows.by_past, rows.by_present)
    return Transition(
        code, rows.value[:, :TANGENT], rows.value[:, TANGENT:],
        past_rows[:, :TANGENT], present_rows[:, :TANGENT], past_rows[:, TANGENT:],
    )  # fmt: skip


def following_residual(
    network: HuMoR, past: State, present: State, pivot: Float[Tensor, "3"]
) -> tuple[Float[Tensor, "T 255"], Float[Tensor, "T 255 207"], Float[Tensor, "T 255 207"]]:
    """`state` and `latent` with z the posterior's mean wherever the states are, and derivatives.

    By past and present, through the encoder too: the gradient is that of an energy of the states
    alone. Arguments and increments as in `transition_residual`.
    """
    frame = _frame(past, pivot)
    before, after = frame.apply(past), frame.apply(present)
    both = torch.cat([before.vector(), after.vector()], dim=-1)
    output, encoded = layers_jacobian(network.encoder, both)
    rows = _canonical(network, before, after, output[:, :LATENT])
    ends = []
    for own, inputs, state in (
        (rows.by_past, encoded[:, :LATENT, :STATE], before),
        (rows.by_present, encoded[:, :LATENT, STATE:], after),
    ):
        ends.append(own + rows.by_code @ _by_tangent(inputs, state))
    return rows.value, *_to_world(frame, before, after, ends[0], ends[1])


def following_values(
    network: HuMoR, past: State, present: State, pivot: Float[Tensor, "3"]
) -> Float[Tensor, "T 255"]:
    """The value of `following_residual` alone."""
    frame = _frame(past, pivot)
    before, after = frame.apply(past).vector(), frame.apply(present).vector()
    code = network.posterior(before, after)[0]
    return torch.cat(transition_values(network, past, present, pivot, code), dim=-1)


def transition_values(
    network: HuMoR, past: State, present: State, pivot: Float[Tensor, "3"], code: Tensor
) -> tuple[Float[Tensor, "T 207"], Float[Tensor, "T 48"]]:
    """`state` and `latent` of `transition_residual` alone: for the energy of a step."""
    frame = _frame(past, pivot)
    before = frame.apply(past)
    vector = before.vector()
    predicted, _ = network.decode(vector, code)
    mean, variance = network.prior(vector)
    return _difference(predicted, frame.apply(present))[0], (code - mean) / variance.sqrt()


def layers_jacobian(
    layers: Layers, x: Float[Tensor, "T I"], code: Float[Tensor, "T 48"] | None = None
) -> tuple[Float[Tensor, "T O"], Float[Tensor, "T O I"]]:
    """Value of a network and its derivative by x: one product per layer, from the output back."""
    value, rows, _ = _layers_jacobians(layers, x, code)
    return value, rows


def _layers_jacobians(
    layers: Layers, x: Float[Tensor, "T I"], code: Float[Tensor, "T 48"] | None
) -> tuple[Float[Tensor, "T O"], Float[Tensor, "T O I"], Float[Tensor, "T O L"]]:
    """Value of a network and its derivatives by x and by the code, of which there may be none."""
    value, width = x, x.shape[-1]
    backward: list[_Product | _Normalisation] = []
    for layer in layers.net:
        if isinstance(layer, nn.Linear):
            weight, kept = layer.weight, value.shape[-1]
            full = value if code is None else torch.cat([value, code], dim=-1)
            value = nn.functional.linear(full, weight, layer.bias)
            backward.append(_Product(weight[:, :kept], weight[:, kept:]))
        elif isinstance(layer, nn.GroupNorm):
            normal, deviation = _normalised(value, layer)
            value = nn.functional.relu(normal * layer.weight + layer.bias)
            backward.append(_Normalisation(normal, layer.weight * (value > 0), deviation))
    rows = torch.eye(value.shape[-1]).to(x).expand(len(x), -1, -1)
    by_code = rows.new_zeros(*rows.shape[:2], 0 if code is None else code.shape[-1])
    for step in reversed(backward):
        if isinstance(step, _Product):
            by_code = by_code + rows @ step.skip
        rows = step.pull(rows)
    assert rows.shape[-1] == width
    return value, rows, by_code


@dataclass(frozen=True)
class _Product:
    weight: Tensor
    skip: Tensor  # of the code

    def pull(self, rows: Float[Tensor, "T R O"]) -> Float[Tensor, "T R I"]:
        return rows @ self.weight


@dataclass(frozen=True)
class _Normalisation:
    """Group normalisation, its gain and a ReLU: y = max(0, gain n + bias)."""

    normal: Float[Tensor, "T W"]
    gain: Float[Tensor, "T W"]  # 0 where the ReLU is
    deviation: Float[Tensor, "T G"]

    def pull(self, rows: Float[Tensor, "T R W"]) -> Float[Tensor, "T R W"]:
        """Derivative of n: (1 - mean - n mean(n .)) / deviation within a group; symmetric."""
        groups = self.deviation.shape[-1]
        scaled = (rows * self.gain[:, None]).reshape(*rows.shape[:2], groups, -1)
        normal = self.normal.reshape(len(rows), 1, groups, -1)
        common = scaled.mean(dim=-1, keepdim=True)
        along = (scaled * normal).mean(dim=-1, keepdim=True)
        pulled = (scaled - common - normal * along) / self.deviation[:, None, :, None]
        return pulled.reshape(rows.shape)


def _frame(past: State, pivot: Float[Tensor, "3"]) -> Frame:
    frame = canonical_frame(past)
    flat = torch.cat([pivot[:2], torch.zeros_like(pivot[2:])])
    return Frame(frame.rotation, frame.shift, flat.expand_as(frame.shift))


def _normalised(x: Float[Tensor, "T W"], layer: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    grouped = x.reshape(len(x), layer.num_groups, -1)
    centred = grouped - grouped.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt()
    return (centred / deviation).reshape(x.shape), deviation[..., 0]


@dataclass(frozen=True)
class _Canonical:
    """Residuals in the frame of the past, 207 of the state and 48 of z, and their derivatives."""

    value: Float[Tensor, "T 255"]
    by_past: Float[Tensor, "T 255 207"]
    by_present: Float[Tensor, "T 255 207"]
    by_code: Float[Tensor, "T 255 48"]


def _canonical(network: HuMoR, before: State, after: State, code: Tensor) -> _Canonical:
    raw, rows, raw_by_code = _layers_jacobians(network.decoder, before.vector(), code)
    turns = raw[:, _places(TURNS)]
    predicted = changed(before, raw)[0]
    # Rotations exp(raw) R: in the body's axes I + (exp(raw) R)' J rows, J the left Jacobian at raw.
    into_body = _turns(predicted).transpose(-1, -2) @ left_jacobian(turns)
    by_past = _blocks(into_body, _by_tangent(rows[:, :TANGENT], before))
    by_past = by_past + torch.eye(TANGENT, dtype=raw.dtype, device=raw.device)
    state, own, prediction = _difference(predicted, after)
    latent, latent_by_past, deviation = _latent(network, before, code)
    latent_by_code = torch.diag_embed(1 / deviation)
    latent_by_present = latent_by_past.new_zeros(latent_by_past.shape)
    by_code = _blocks(into_body, raw_by_code[:, :TANGENT])
    return _Canonical(
        torch.cat([state, latent], dim=-1),
        torch.cat([-_blocks(prediction, by_past), latent_by_past], dim=1),
        torch.cat([_diagonal(own), latent_by_present], dim=1),
        torch.cat([-_blocks(prediction, by_code), latent_by_code], dim=1),
    )


def _latent(
    network: HuMoR, before: State, code: Float[Tensor, "T 48"]
) -> tuple[Float[Tensor, "T 48"], Float[Tensor, "T 48 207"], Float[Tensor, "T 48"]]:
    """(z - mu) / sigma, its derivative by the past's tangent, and sigma = exp(logvar / 2)."""
    output, rows = layers_jacobian(network.prior_net, before.vector())
    mean, log_variance = output.chunk(2, dim=-1)
    mean_rows, log_rows = rows.chunk(2, dim=1)
    deviation = (0.5 * log_variance).exp()
    value = (code - mean) / deviation
    derivative = -mean_rows / deviation[..., None] - 0.5 * value[..., None] * log_rows
    return value, _by_tangent(derivative, before), deviation


def _by_tangent(rows: Float[Tensor, "T R 339"], state: State) -> Float[Tensor, "T R 207"]:
    """Rows by the 339 numbers of a state -> by its tangent: d vec(R) = vec(R [d]x)."""
    out = rows.new_empty(*rows.shape[:2], TANGENT)
    out[..., PLAIN_TANGENT] = rows[..., PLAIN]
    rotations = torch.cat([state.root_orient[:, None], state.pose_body], dim=1)
    entries = torch.tensor(MATRICES)[:, None] + torch.arange(9)
    blocks = rows[..., entries].reshape(*rows.shape[:2], BODY_JOINTS + 1, 3, 3)
    turned = torch.einsum("trjab,tjac->trjcb", blocks, rotations)
    # <M, [d]x> = d . (M32 - M23, M13 - M31, M21 - M12)
    odd = turned.transpose(-1, -2) - turned
    by_turn = torch.stack([odd[..., 1, 2], odd[..., 2, 0], odd[..., 0, 1]], dim=-1)
    out[..., _places(TURNS)] = by_turn
    return out


def _places(starts: list[int]) -> Tensor:
    return torch.tensor(starts)[:, None] + torch.arange(3)


def _turns(state: State) -> Float[Tensor, "T 22 3 3"]:
    return torch.cat([state.root_orient[:, None], state.pose_body], dim=1)


def _difference(
    predicted: State, present: State
) -> tuple[Float[Tensor, "T 207"], Float[Tensor, "T 22 3 3"], Float[Tensor, "T 22 3 3"]]:
    """Residual; derivative of its rotations by the present's, and minus that by the prediction's.

    e = log(R_pred' R): by R the inverse right Jacobian, by R_pred minus its transpose.
    """
    turn = roma.rotmat_to_rotvec(_turns(predicted).transpose(-1, -2) @ _turns(present))
    own = inverse_right_jacobian(turn)
    plain = (present.vector() - predicted.vector())[:, PLAIN]
    value = plain.new_empty(len(plain), TANGENT)
    value[:, PLAIN_TANGENT] = plain
    value[:, _places(TURNS)] = turn
    return value, own, own.transpose(-1, -2)


def _blocks(
    blocks: Float[Tensor, "T 22 3 3"], rows: Float[Tensor, "T 207 C"]
) -> Float[Tensor, "T 207 C"]:
    """Rows of the rotations multiplied from the left, the others as they are."""
    out = rows.clone()
    places = _places(TURNS)
    out[:, places] = torch.einsum("tjab,tjbc->tjac", blocks, rows[:, places])
    return out


def _diagonal(own: Float[Tensor, "T 22 3 3"]) -> Float[Tensor, "T 207 207"]:
    identity = torch.eye(TANGENT, dtype=own.dtype, device=own.device)
    return _blocks(own, identity.expand(len(own), -1, -1))


def _to_world(
    frame: Frame,
    before: State,
    after: State,
    past: Float[Tensor, "T R 207"],
    present: Float[Tensor, "T R 207"],
) -> tuple[Float[Tensor, "T R 207"], Float[Tensor, "T R 207"]]:
    """Rows by canonical increments -> by increments in the world, the frame moving with the past.

    The frame's origin moves with the past transl and its heading with the past root: turning by p,
    every canonical vector v changes by -p z x v, the root's R by -p R' z in its own axes.
    """
    places = _places(VECTORS)
    along = past.new_zeros(*past.shape[:2], 2)
    heading = past.new_zeros(past.shape[:2])
    out = []
    for rows, state in ((past, before), (present, after)):
        vectors, pivot = rows[:, :, places], frame.pivot[:, :2]
        along += vectors[:, :, [VECTORS.index(p) for p in POSITIONS], :2].sum(dim=2)
        turned = _vectors(state)
        turned[:, [VECTORS.index(p) for p in range(75, 141, 3)], :2] -= pivot[:, None]
        heading += torch.einsum("trv,tv->tr", vectors[..., 1], turned[..., 0])
        heading -= torch.einsum("trv,tv->tr", vectors[..., 0], turned[..., 1])
        heading += torch.einsum("trc,tc->tr", rows[:, :, ROOT], state.root_orient[:, 2])
        world = rows.clone()
        world[:, :, places] = vectors @ frame.rotation[:, None]
        out.append(world)
    # Heading by the past root's increment d: of r = -R e_x, dr = -R (d x e_x), dp = dr_y / r_x.
    root = before.root_orient
    slope = torch.stack([torch.zeros_like(root[:, 0, 0]), root[:, 1, 2], -root[:, 1, 1]], dim=-1)
    slope = slope / -root[:, :1, 0]
    out[0][:, :, ROOT] -= heading[..., None] * slope[:, None]
    out[0][:, :, :2] -= along @ frame.rotation[:, :2, :2]
    return out[0], out[1]


def _vectors(state: State) -> Float[Tensor, "T 47 3"]:
    """All vectors of a state in the tangent's order."""
    single = [state.trans, state.trans_vel, state.root_orient_vel]
    return torch.cat([torch.stack(single, dim=1), state.joints, state.joints_vel], dim=1)
