"""Body files: licensed layouts against `smplx`, pickles that are not run, errors."""

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import roma
import scipy.sparse
import torch

from slamhmr.body import forward_points, load_body, transl_from_pelvis, vertices
from slamhmr.body_files import smpl_arrays
from slamhmr.body_licensed import LANDMARK_VERTICES
from slamhmr.errors import InputError, MissingAsset
from slamhmr.skeleton import SMPL_PARENTS

F64 = torch.float64
JOINTS = {"smpl": 24, "smplh": 52, "smplx": 55}
LANDMARKS = {"nose": 0, "left_heel": 5, "right_big_toe": 9}


def joint_tree(joint_count: int) -> list[int]:
    if joint_count == 24:
        return list(SMPL_PARENTS)
    parents = list(SMPL_PARENTS[:22]) + [15, 15, 15][: joint_count - 52]  # jaw and eyes
    for wrist in (20, 21):
        for _ in range(5):
            parents += [wrist, len(parents), len(parents) + 1]
    return parents


def random_model(joint_count: int, *, vertex_count: int = 60, betas: int = 12, seed: int = 0):
    """Random arrays under SMPL's keys; landmark names of its own, since it has too few vertices."""
    rng = np.random.default_rng(seed)
    parents = np.array(joint_tree(joint_count))
    parents[0] = 2**32 - 1
    weights = rng.random((vertex_count, joint_count)) ** 8
    regressor = rng.random((joint_count, vertex_count)) ** 6
    return {
        "v_template": rng.normal(size=(vertex_count, 3)),
        "shapedirs": 0.1 * rng.normal(size=(vertex_count, 3, betas)),
        "posedirs": 0.02 * rng.normal(size=(vertex_count, 3, 9 * (joint_count - 1))),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(joint_count)]).astype(np.uint32),
        "f": rng.integers(0, vertex_count, size=(20, 3)).astype(np.uint32),
        "landmark_names": np.array(list(LANDMARKS)),
        "landmark_vertices": np.array(list(LANDMARKS.values())),
    }


def saved(path: Path, arrays) -> Path:
    np.savez(path, **arrays)
    return path


def random_pose(frames: int = 4):
    rng = np.random.default_rng(1)
    rotvecs = torch.as_tensor(0.7 * rng.normal(size=(1, frames, 22, 3)))
    return (
        torch.as_tensor(rng.normal(size=(1, 10))),
        rotvecs,
        torch.as_tensor(rng.normal(size=(1, frames, 3))),
    )


class AnyVertex(dict):
    """Vertex ids for smplx's extra joints on a tiny mesh: always vertex 0."""

    def __missing__(self, key):
        return 0


def official_model(kind: str, arrays, path: Path):
    smplx = pytest.importorskip("smplx", reason="parity needs the non-commercial smplx package")
    from smplx.utils import Struct

    hands = {f"hands_components{side}": np.eye(45) for side in "lr"}
    hands |= {f"hands_mean{side}": np.zeros(45) for side in "lr"}
    if kind == "smpl":
        return smplx.SMPL(
            "", data_struct=Struct(**arrays), vertex_ids=AnyVertex(), batch_size=4, dtype=F64
        )
    if kind == "smplh":
        return smplx.SMPLH(
            "", data_struct=Struct(**arrays, **hands), vertex_ids=AnyVertex(), batch_size=4,
            use_pca=False, flat_hand_mean=True, dtype=F64,
        )  # fmt: skip
    face = {"lmk_faces_idx": np.zeros(51, dtype=int), "lmk_bary_coords": np.ones((51, 3)) / 3}
    official = saved(path / "official.npz", arrays | hands | face)
    return smplx.SMPLX(
        str(official), ext="npz", use_pca=False, flat_hand_mean=True, batch_size=4, dtype=F64
    )


@pytest.mark.parametrize("kind", ["smpl", "smplh", pytest.param("smplx", marks=pytest.mark.slow)])
def test_same_numbers_as_the_smplx_package(kind, tmp_path):
    size = {"vertex_count": 10475, "betas": 20} if kind == "smplx" else {}
    arrays = random_model(JOINTS[kind], **size)
    official = official_model(kind, arrays, tmp_path)
    body = load_body(saved(tmp_path / "model.npz", arrays))
    assert body.name == kind
    betas, rotvecs, pelvis = random_pose()
    rotations = roma.rotvec_to_rotmat(rotvecs)
    state = (body, betas, rotations[:, :, 0], pelvis, rotations[:, :, 1:])
    transl = transl_from_pelvis(body, betas, pelvis)[0]
    body_pose = torch.zeros(4, 69 if kind == "smpl" else 63, dtype=F64)
    body_pose[:, :63] = rotvecs[0, :, 1:].reshape(4, 63)
    output = official(
        betas=betas.expand(4, -1),
        global_orient=rotvecs[0, :, 0],
        body_pose=body_pose,
        transl=transl,
    )
    points, _ = forward_points(*state)
    count = 24 if kind == "smpl" else 22
    assert (points[0, :, :count] - output.joints[:, :count]).abs().max() < 1e-5
    assert (vertices(*state)[0] - output.vertices).abs().max() < 1e-5
    if kind != "smpl":  # SMPL's hand joints: the mean of index, middle and ring knuckle
        first = JOINTS[kind] - 30
        left = output.joints[:, [first, first + 3, first + 9]].mean(dim=1)
        assert (points[0, :, 22] - left).abs().max() < 1e-5


def test_exported_default_body_is_an_smpl_model():
    smplx = pytest.importorskip("smplx", reason="parity needs the non-commercial smplx package")
    from smplx.utils import Struct

    arrays = smpl_arrays()
    arrays["posedirs"] = np.zeros((len(arrays["v_template"]), 3, 207), dtype=np.float32)
    official = smplx.SMPL("", data_struct=Struct(**arrays), batch_size=4, dtype=F64)
    body = load_body()
    betas, rotvecs, pelvis = random_pose()
    rotations = roma.rotvec_to_rotmat(rotvecs)
    state = (body, betas, rotations[:, :, 0], pelvis, rotations[:, :, 1:])
    output = official(
        betas=betas.expand(4, -1),
        global_orient=rotvecs[0, :, 0],
        body_pose=torch.cat([rotvecs[0, :, 1:].reshape(4, 63), torch.zeros(4, 6)], dim=1),
        transl=transl_from_pelvis(body, betas, pelvis)[0],
    )
    assert (forward_points(*state)[0][0, :, :24] - output.joints[:, :24]).abs().max() < 1e-5
    assert (vertices(*state)[0] - output.vertices).abs().max() < 1e-5


@pytest.mark.parametrize(("count", "kind"), [(6890, "smplh"), (10475, "smplx")])
def test_landmark_vertices_are_the_published_ones(count, kind):
    smplx = pytest.importorskip("smplx", reason="the published table is compared, not copied")
    published = smplx.vertex_ids.vertex_ids[kind]
    short = {
        "eye": "eye",
        "ear": "ear",
        "thumb_tip": "thumb",
        "index_tip": "index",
        "pinky_tip": "pinky",
        "big_toe": "BigToe",
        "small_toe": "SmallToe",
        "heel": "Heel",
    }
    for name, vertex in LANDMARK_VERTICES[count].items():
        side, _, part = name.partition("_")
        if side in ("left", "right"):
            letter = side[0].upper() if short[part][0].isupper() else side[0]
            assert published[letter + short[part]] == vertex, name
    assert published["nose"] == LANDMARK_VERTICES[count]["nose"]


@pytest.mark.parametrize(("name", "gender"), [
    ("SMPL_FEMALE.npz", "female"), ("SMPLX_NEUTRAL.npz", "neutral"), ("male/model.npz", "male"),
    ("basicModel_f_lbs_10_207_0_v1.0.0.npz", "female"), ("mine.npz", "unknown"),
])  # fmt: skip
def test_gender_comes_from_the_official_names(name, gender, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    assert load_body(saved(path, random_model(24))).gender == gender


def chumpy_module(monkeypatch) -> types.SimpleNamespace:
    """Fake chumpy classes that pickle under the real names."""
    made = {}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select"),
                         ("chumpy.ch", "MatVecMult")):  # fmt: skip
        cls = type(name, (), {"__module__": module})
        fake = sys.modules.get(module) or types.ModuleType(module)
        setattr(fake, name, cls)
        monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        monkeypatch.setitem(sys.modules, module, fake)
        made[name] = cls
    return types.SimpleNamespace(**made)


def instance(cls: type, **state):
    made = cls()
    made.__dict__.update(state)
    return made


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("sparse", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix,
                                    scipy.sparse.coo_matrix])  # fmt: skip
def test_pickles_with_chumpy_and_scipy_equal_their_npz(protocol, sparse, tmp_path, monkeypatch):
    arrays = random_model(24)
    arrays["J_regressor"][arrays["J_regressor"] < 0.01] = 0
    chumpy = chumpy_module(monkeypatch)
    wide = np.concatenate([arrays["shapedirs"], arrays["shapedirs"]], axis=2)
    index = np.arange(wide.size).reshape(wide.shape)[:, :, :12].ravel()
    content = dict(arrays) | {
        "J_regressor": sparse(arrays["J_regressor"]),
        "shapedirs": instance(
            chumpy.Select, a=instance(chumpy.Ch, x=wide), idxs=index,
            preferred_shape=arrays["shapedirs"].shape,
        ),
        "posedirs": instance(chumpy.Ch, x=arrays["posedirs"], _dirty_vars=None),
        "J": instance(chumpy.MatVecMult, mtx=sparse(arrays["J_regressor"])),  # not needed
        "bs_style": "lbs",
    }  # fmt: skip
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    monkeypatch.undo()
    assert "chumpy" not in sys.modules
    read, expected = load_body(path), load_body(saved(tmp_path / "model.npz", arrays))
    for name in ("v_template", "shapedirs", "posedirs", "weights", "joint_template"):
        assert torch.equal(getattr(read, name), getattr(expected, name)), name


def test_python2_array_strings_are_read(tmp_path):
    """An array as Python 2 wrote it: protocol 0, the raw bytes in a str."""
    text = (
        b"(dp0\nS'v_template'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1\nI3\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00@"
        b"\\x00\\x00\\x00\\x00\\x00\\x00\\xe0\\xbf'\ntbs."
    )
    from slamhmr.body_pickle import read_pickle

    path = tmp_path / "old.pkl"
    path.write_bytes(text)
    assert read_pickle(path, ("v_template",))["v_template"].tolist() == [[1.0, 2.0, -0.5]]


class Payload:
    """Runs a function when a careless reader unpickles it."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", ["os.system", "eval", "exec", "getattr", "open"])
def test_a_malicious_pickle_does_not_run(function, protocol, tmp_path):
    trace = tmp_path / "it-ran"
    payload = {
        "os.system": Payload(os.system, f"touch {trace}"),
        "eval": Payload(eval, f"open({str(trace)!r}, 'w')"),
        "exec": Payload(exec, f"open({str(trace)!r}, 'w')"),
        "getattr": Payload(getattr, np.ndarray, "__subclasses__"),
        "open": Payload(open, str(trace), "w"),
    }[function]
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(random_model(24) | {"extra": payload}, protocol=protocol))
    with pytest.raises(InputError, match=rf"'\w+\.{function.split('.')[-1]}'.*refused"):
        load_body(path)
    assert not trace.exists()
    if function in ("os.system", "eval", "exec", "open"):  # the payload itself is sound
        pickle.loads(path.read_bytes())
        assert trace.exists()


@pytest.mark.parametrize("text", [
    b"cnumpy\nndarray.__class__\n.",
    b"cnumpy.testing\nassert_equal\n.",
    b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
    b"cchumpy.ch\nCh\n(dS'name'\nS'x'\nsb.",  # state set on the class, not on an object
    b"cscipy.sparse.csc\ncsc_matrix\n(dS'kind'\nS'csr'\nsb.",
    b"\x80\x02X\x05\x00\x00\x00", b"", b"not a pickle", b"I1\n.",
])  # fmt: skip
def test_odd_pickles_are_input_errors(text, tmp_path):
    path = tmp_path / "odd.pkl"
    path.write_bytes(text)
    with pytest.raises(InputError, match="odd.pkl"):
        load_body(path)


def without(key):
    return lambda arrays: arrays.pop(key)


def changed(key, function):
    return lambda arrays: arrays.__setitem__(key, function(arrays[key]))


def not_finite(array):
    array = array.copy()
    array.flat[3] = np.nan
    return array


FAULTS = {
    "no weights": (without("weights"), "has no weights"),
    "no faces": (without("f"), "has no f"),
    "16 joints, a hand": (changed("J_regressor", lambda a: a[:16]), "16 joints; allowed: 24"),
    "flat template": (changed("v_template", lambda a: a[:, :2]), r"v_template has shape \(60, 2\)"),
    "few weights": (changed("weights", lambda a: a[:-1]), "weights has shape"),
    "other posedirs": (changed("posedirs", lambda a: a[..., :-9]), "posedirs has shape"),
    "two-axis shapes": (changed("shapedirs", lambda a: a[..., 0]), "shapedirs has shape"),
    "few shapes": (changed("shapedirs", lambda a: a[..., :9]), "9 directions; at least 10"),
    "not a number": (changed("v_template", not_finite), "v_template holds values"),
    "words": (changed("weights", lambda a: a.astype(str)), "weights holds values"),
    "other tree": (changed("kintree_table", lambda a: a[:, ::-1]), "tree of SMPL's joints"),
    "face beyond": (changed("f", lambda a: a + 50), r"outside 0\.\.59"),
    "unknown mesh": (without("landmark_names"), "60 vertices; landmarks are known for 6890"),
    "unknown landmark": (
        changed("landmark_names", lambda a: np.array(["nose", "left_heel", "left_fin"])),
        "'left_fin' is unknown",
    ),
    "sideless landmark": (
        changed("landmark_names", lambda a: np.array(["nose", "left_heel", "heel"])),
        "must begin with left or right",
    ),
    "landmark beyond": (changed("landmark_vertices", lambda a: a + 55), "one vertex below 60"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_named_in_one_line(fault, tmp_path):
    change, message = FAULTS[fault]
    arrays = random_model(24)
    change(arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_body(saved(tmp_path / "faulty.npz", arrays))
    assert "faulty.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_and_missing_files(tmp_path):
    path = saved(tmp_path / "cut.npz", random_model(24))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        load_body(path)
    with pytest.raises(MissingAsset, match="neither a file nor one of default, default-hands"):
        load_body(tmp_path / "absent.npz")
    (tmp_path / "model.obj").write_text("v 0 0 0")
    with pytest.raises(InputError, match=r"'\.obj'; allowed: \.npz, \.pkl"):
        load_body(tmp_path / "model.obj")


def test_objects_beside_the_arrays_are_never_loaded(tmp_path):
    """SMPL-X files hold a pickled dictionary (`joint2num`); it stays on the disk."""
    arrays = random_model(24) | {"joint2num": np.array({"pelvis": 0}, dtype=object)}
    path = tmp_path / "model.npz"
    np.savez(path, **arrays)
    assert load_body(path).name == "smpl"
    arrays["weights"] = arrays["weights"].astype(object)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="damaged"):
        load_body(path)


def test_our_package_never_imports_smplx():
    """Its licence is non-commercial; only tests may."""
    for path in Path(__file__).parent.parent.joinpath("slamhmr").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not line.strip().startswith(("import smplx", "from smplx")), path
