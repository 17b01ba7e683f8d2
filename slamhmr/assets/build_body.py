"""Makes `body.npz`, the default body: `python -m slamhmr.assets.build_body` (extra `body`).

A licence-free body of SMPL's format out of MakeHuman's CC0 mesh and blendshapes as packaged by anny
0.6.2: 600 random adults, put into SMPL's rest pose with anny's own skinning, compressed to a mean
and 10 principal directions of vertices and joints together. Joints are linear in the betas, fitted
directly; the regressor shipped beside them reproduces exactly those (signed, of least L1 norm).
Betas are NOT those of the licensed SMPL. The first construction of anny takes about 1.5 min, 1.7 GB
of memory and an 0.8 GB cache; then the script needs half a minute.

Measured by `report_errors` on 120 held-out adults, mean (max) mm. With 10 betas: vertices 1.6 (95 %
below 5.3); 22 joints 1.1 (7.9): hips 1.3, knees 1.6, ankles 0.9, spine1-3 1.3/1.9/2.0, neck 0.9,
head 1.1, collars 1.0, shoulders 1.4, elbows 1.2, wrists 0.6. The regressor on the raw meshes, i.e.
on shapes outside the model: 2.6 (24), spine2 worst with 6.0; its rows have a sum of |w| of 3 to 9,
the head 17, so do not use it on noisy vertices. (A convex regressor missed the same joints by 4.4,
spine3 by 18 and the knees by 12 mm.) The mean adult is 1.69 m tall.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
import torch
from numpy.typing import NDArray

from slamhmr.assets.landmarks import landmark_vertices, segment_ids
from slamhmr.assets.t_pose import Rig, posed_heads, t_pose_rotations
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS, SMPL_PARENTS

Array = NDArray[np.float64]

SEED = 0
TRAIN, HELD_OUT = 480, 120
BETAS = 10
AGE_YEARS = (18.0, 75.0)
GENDER_BETA = 0.35  # Beta(.35, .35): both sexes, few in between
JOINT_SHARE = 3.0  # all joints together weigh this many times all vertices; knees 1.6, not 4.3 mm
CANDIDATES = 1500  # nearest vertices that may carry a joint in the regressor

# Where each SMPL joint lies, as shares of heads of anny's bones; "*" stands for the side.
TOES = {f"toe{toe}-1.*": 0.2 for toe in range(1, 6)}
JOINT_HEADS: dict[str, dict[str, float]] = {
    "pelvis": {"root": 0.25, "spine04": 0.75},
    "spine1": {"spine03": 1}, "spine2": {"spine02": 1}, "spine3": {"spine01": 1},
    "neck": {"neck01": 1}, "head": {"head": 1},
    "hip": {"upperleg01.*": 1}, "knee": {"lowerleg01.*": 1}, "ankle": {"foot.*": 1}, "foot": TOES,
    "collar": {"clavicle.*": 0.5, "shoulder01.*": 0.5},
    "shoulder": {"upperarm01.*": 1}, "elbow": {"lowerarm01.*": 1}, "wrist": {"wrist.*": 1},
}  # fmt: skip
# Which SMPL joint each bone moves with, by the start of its name; fingers are listed apart.
BONE_JOINT: dict[str, str] = {
    "root": "pelvis", "pelvis": "pelvis", "spine05": "pelvis", "spine04": "pelvis",
    "spine03": "spine1", "spine02": "spine2", "spine01": "spine3", "neck": "neck",
    "head": "head", "eye": "head", "upperleg": "hip", "lowerleg": "knee", "foot": "ankle",
    "toe": "foot", "clavicle": "collar", "shoulder01": "collar", "upperarm": "shoulder",
    "lowerarm": "elbow", "wrist": "wrist", "metacarpal": "wrist",
}  # fmt: skip
FINGERS = {
    "index": 2,
    "middle": 3,
    "pinky": 5,
    "ring": 4,
    "thumb": 1,
}  # SMPL-H order: anny's number


@dataclass(frozen=True)
class Samples:
    """T-posed random adults: S shapes, V vertices, J = 52 joints; pelvis joint at the origin."""

    vertices: NDArray[np.float32]  # (S, V, 3)
    joints: Array  # (S, J, 3)


def joint_names() -> tuple[str, ...]:
    """The 52 joints of SMPL-H: 22 of SMPL, then the fingers of the left and the right hand."""
    fingers = tuple(
        f"{side}_{finger}{part}"
        for side in ("left", "right") for finger in FINGERS for part in (1, 2, 3)
    )  # fmt: skip
    return SMPL_JOINTS[:BODY_JOINT_COUNT] + fingers


def joint_parents() -> tuple[int, ...]:
    """Parents of the 52 joints, -1 for the pelvis."""
    parents = list(SMPL_PARENTS[:BODY_JOINT_COUNT])
    for wrist in (20, 21):
        for _ in FINGERS:
            first = len(parents)
            parents += [wrist, first, first + 1]
    return tuple(parents)


def joint_of_bones(rig: Rig) -> NDArray[np.int64]:
    """Row among the 52 joints that each bone moves with."""
    names = joint_names()
    rows = []
    for bone in rig.names:
        stem, _, side = bone.partition(".")
        prefix = {"L": "left_", "R": "right_", "": ""}[side]
        if stem.startswith("finger"):
            finger = next(name for name, number in FINGERS.items() if number == int(stem[6]))
            rows.append(names.index(f"{prefix}{finger}{stem[-1]}"))
            continue
        joint = next(joint for start, joint in BONE_JOINT.items() if stem.startswith(start))
        central = joint in ("pelvis", "head")  # pelvis.L and eye.L have a side, their joints none
        rows.append(names.index(joint if central else prefix + joint))
    return np.array(rows)


def head_shares(rig: Rig) -> Array:
    """Matrix (52, R) that takes the bone heads to the joints."""
    names = joint_names()
    shares = np.zeros((len(names), len(rig.names)))
    for row, name in enumerate(names):
        prefix, _, stem = name.rpartition("_")
        side = {"left": "L", "right": "R", "": ""}[prefix]
        heads = JOINT_HEADS.get(stem)
        if heads is None:
            heads = {f"finger{FINGERS[stem[:-1]]}-{stem[-1]}.*": 1.0}
        for bone, share in heads.items():
            shares[row, rig.index(bone.replace("*", side))] = share
    return shares


def draw_samples(model: Any, rig: Rig, weights: scipy.sparse.csr_matrix, count: int) -> Samples:
    """Random adults of an anny model in SMPL's rest pose."""
    from anny.shape_distribution import SimpleShapeDistribution

    torch.manual_seed(SEED)
    shapes = SimpleShapeDistribution(
        model,
        morphological_age_distribution=torch.distributions.Uniform(
            *torch.tensor(AGE_YEARS, dtype=torch.float64)
        ),
        gender_distribution=torch.distributions.Beta(
            *torch.full((2,), GENDER_BETA, dtype=torch.float64)
        ),
    )
    _, phenotype = shapes.sample(count)
    coefficients = model.get_phenotype_blendshape_coefficients(**phenotype)
    heads = _y_up(
        model.template_bone_heads
        + torch.einsum("sb,brd->srd", coefficients, model.bone_heads_blendshapes)
    )
    rotations = t_pose_rotations(rig, heads)
    posed = posed_heads(rig, heads, rotations)
    joints = np.einsum("jr,srd->sjd", head_shares(rig), posed)
    vertices = np.empty((count, len(model.template_vertices), 3), dtype=np.float32)
    for sample in range(count):
        rest = _y_up(model.get_rest_vertices(coefficients[sample : sample + 1])[0])
        shift = posed[sample] - np.einsum("rij,rj->ri", rotations[sample], heads[sample])
        bones = np.concatenate([rotations[sample], shift[..., None]], axis=-1).reshape(-1, 12)
        blended = (weights @ bones).reshape(-1, 3, 4)
        skinned = np.einsum("vij,vj->vi", blended[..., :3], rest) + blended[..., 3]
        vertices[sample] = skinned - joints[sample, 0]
    return Samples(vertices, joints - joints[:, :1])


def principal_directions(train: Samples) -> tuple[Array, Array, Array, Array]:
    """Mean (V,3), unit-variance directions (V,3,B), then the same of the joints (J,...).

    Directions of vertices and joints together, by the Gram matrix of the samples; each joint counts
    as much as JOINT_SHARE * V / J vertices. Signs: beta 0 + is taller, the others + move the
    vertices away from the pelvis on the whole.
    """
    count, vertex_count = train.vertices.shape[:2]
    v_template = train.vertices.mean(axis=0, dtype=np.float64)
    joint_template = train.joints.mean(axis=0)
    vertices = (train.vertices - v_template).reshape(count, -1)
    joints = (train.joints - joint_template).reshape(count, -1)
    emphasis = JOINT_SHARE * vertex_count / train.joints.shape[1]
    gram = vertices @ vertices.T + emphasis * joints @ joints.T
    values, vectors = np.linalg.eigh(gram)
    basis = vectors[:, ::-1][:, :BETAS]
    print("variance shares, %:", np.round(100 * values[::-1][:BETAS] / values.sum(), 2))
    shapedirs = (basis.T @ vertices).reshape(BETAS, -1, 3) / np.sqrt(count - 1)
    joint_dirs = (basis.T @ joints).reshape(BETAS, -1, 3) / np.sqrt(count - 1)
    height = np.ptp(v_template[:, 1])
    taller = np.ptp(v_template[:, 1] + 0.1 * shapedirs[:, :, 1], axis=1) - height
    larger = (shapedirs * v_template).sum(axis=(1, 2))
    signs = np.sign(np.concatenate([taller[:1], larger[1:]]))[:, None, None]
    return (
        v_template,
        (signs * shapedirs).transpose(1, 2, 0),
        joint_template,
        (signs * joint_dirs).transpose(1, 2, 0),
    )


def joint_regressor(
    v_template: Array, shapedirs: Array, joint_template: Array, joint_shapedirs: Array
) -> Array:
    """Sparse matrix (J, V) of least L1 norm, rows summing to 1, from shaped vertices to joints.

    It reproduces the joints at the mean and along every shape direction, i.e. for all betas: 34
    equations per joint, hence at most 34 entries in a basic solution of the linear programme.
    """
    basis = np.concatenate([v_template[..., None], shapedirs], axis=-1)  # (V, 3, 1 + B)
    wanted = np.concatenate([joint_template[..., None], joint_shapedirs], axis=-1)
    regressor = np.zeros((len(wanted), len(basis)))
    for joint, target in enumerate(wanted):
        distance = np.linalg.norm(v_template - joint_template[joint], axis=1)
        near = np.argsort(distance)[:CANDIDATES]
        system = np.concatenate([basis[near].reshape(len(near), -1).T, np.ones((1, len(near)))])
        right = np.append(target.reshape(-1), 1.0)
        scale = 1 / np.abs(system).max(axis=1).clip(1e-3)
        solution = scipy.optimize.linprog(
            np.ones(2 * len(near)),
            A_eq=np.hstack([system, -system]) * scale[:, None],
            b_eq=right * scale,
            method="highs",
        )
        weights = solution.x[: len(near)] - solution.x[len(near) :]
        kept = np.flatnonzero(np.abs(weights) > 1e-9)
        weights[kept] += np.linalg.pinv(system[:, kept]) @ (right - system[:, kept] @ weights[kept])
        regressor[joint, near[kept]] = weights[kept]
    return regressor


def _y_up(points: torch.Tensor) -> Array:
    """Axes of anny (z up, facing -y) to SMPL's (y up, facing +z); +x is left in both."""
    array = points.numpy().astype(np.float64)
    return np.stack([array[..., 0], array[..., 2], -array[..., 1]], axis=-1)


def _fitted_betas(samples: Samples, body: dict[str, Array]) -> Array:
    """Betas (S, B) nearest to the samples in the metric of the principal directions."""
    emphasis = np.sqrt(JOINT_SHARE * samples.vertices.shape[1] / samples.joints.shape[1])
    directions, residuals = [], []
    for key, weight in (("v_template", 1.0), ("joint_template", emphasis)):
        rows = samples.vertices if key == "v_template" else samples.joints
        shape = body["shapedirs" if key == "v_template" else "joint_shapedirs"]
        directions.append(weight * shape.transpose(2, 0, 1).reshape(BETAS, -1))
        residuals.append(weight * (rows - body[key]).reshape(len(rows), -1))
    return np.hstack(residuals) @ np.linalg.pinv(np.hstack(directions))


def report_errors(samples: Samples, body: dict[str, Array]) -> None:
    """Print held-out errors: of vertices and joints by 10 betas, of the regressor on raw meshes."""
    betas = _fitted_betas(samples, body)
    fitted = body["v_template"] + np.einsum("vdb,sb->svd", body["shapedirs"], betas)
    vertex_mm = 1000 * np.linalg.norm(fitted - samples.vertices, axis=-1)
    print(f"vertices: mean {vertex_mm.mean():.2f} mm, p95 {np.quantile(vertex_mm, 0.95):.2f} mm")
    print("std of betas:", np.round(betas.std(axis=0), 2))
    fitted = body["joint_template"] + np.einsum("jdb,sb->sjd", body["joint_shapedirs"], betas)
    regressed = np.einsum("jv,svd->sjd", body["J_regressor"], samples.vertices)
    for label, joints in (("betas", fitted), ("regressor on raw meshes", regressed)):
        error = 1000 * np.linalg.norm(joints - samples.joints, axis=-1)
        print(f"joints by {label}: mean {error[:, :22].mean():.2f} (22), {error.mean():.2f} (52)")
        for name, column in zip(joint_names()[:22], error.T, strict=False):
            print(f"   {name:15s} mean {column.mean():5.2f} max {column.max():5.2f} mm")
    norms = np.abs(body["J_regressor"]).sum(axis=1)
    entries = (body["J_regressor"] != 0).sum(axis=1)
    print("regressor: sum |w|", np.round(norms[:22], 2), "entries", entries[:22])


def main() -> None:
    """Build, measure and write the default body."""
    from anny import Anny

    torch.set_num_threads(1)
    model = Anny(rig="anny", topology="anny", phenotypes="all", skinning_method="lbs")
    rig = Rig(tuple(model.bone_labels), tuple(model.bone_parents))
    rows = np.repeat(np.arange(len(model.template_vertices)), model.vertex_bone_weights.shape[1])
    columns = model.vertex_bone_indices.numpy().ravel()
    values = model.vertex_bone_weights.numpy().ravel()
    weights = scipy.sparse.csr_matrix((values, (rows, columns)), (rows[-1] + 1, len(rig.names)))
    samples = draw_samples(model, rig, weights, TRAIN + HELD_OUT)
    train = Samples(samples.vertices[:TRAIN], samples.joints[:TRAIN])
    held_out = Samples(samples.vertices[TRAIN:], samples.joints[TRAIN:])
    v_template, shapedirs, joint_template, joint_shapedirs = principal_directions(train)
    v_template = v_template.astype(np.float32).astype(np.float64)  # as stored
    shapedirs = shapedirs.astype(np.float16).astype(np.float64)
    regressor = joint_regressor(v_template, shapedirs, joint_template, joint_shapedirs)
    membership = np.eye(len(joint_names()))[joint_of_bones(rig)]
    body = {
        "v_template": v_template,
        "shapedirs": shapedirs,
        "joint_template": joint_template,
        "joint_shapedirs": joint_shapedirs,
        "J_regressor": regressor,
        "weights": np.asarray(weights @ membership),
    }
    report_errors(held_out, body)
    write(body, model.faces.numpy(), model.base_mesh_vertex_indices.numpy())


def write(body: dict[str, Array], faces: NDArray[np.int64], base_ids: NDArray[np.int64]) -> None:
    """Write `body.npz` beside this file: sparse weights and regressor, half-precision shapes."""
    weights = body["weights"]
    width = int((weights > 0).sum(axis=1).max())
    weight_joint = np.argsort(-weights, axis=1, kind="stable")[:, :width]
    regressor_joint, regressor_vertex = np.nonzero(body["J_regressor"])
    names, vertices, joints = landmark_vertices(base_ids, body["v_template"])
    path = Path(__file__).with_name("body.npz")
    np.savez_compressed(
        path,
        name=np.array("slamhmr-body-1"),
        gender=np.array("neutral"),
        licence=np.array("CC0-1.0: derived from MakeHuman data packaged by anny 0.6.2, see NOTICE"),
        v_template=body["v_template"].astype(np.float32),
        shapedirs=body["shapedirs"].astype(np.float16),
        faces=faces.astype(np.uint16),
        parents=np.array(joint_parents(), dtype=np.int16),
        joint_names=np.array(joint_names()),
        joint_template=body["joint_template"],
        joint_shapedirs=body["joint_shapedirs"],
        weight_joint=weight_joint.astype(np.uint8),
        weight_value=np.take_along_axis(weights, weight_joint, axis=1).astype(np.float32),
        regressor_joint=regressor_joint.astype(np.uint8),
        regressor_vertex=regressor_vertex.astype(np.uint16),
        regressor_value=body["J_regressor"][regressor_joint, regressor_vertex],
        landmark_names=np.array(names),
        landmark_vertices=vertices.astype(np.uint16),
        landmark_joint=joints.astype(np.uint8),
        segment=segment_ids(base_ids, body["v_template"], weights).astype(np.uint8),
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
