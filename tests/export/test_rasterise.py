"""The pytorch3d renderer against a fake that enforces the published signature (V0.7.8).

The fake draws by an exact depth buffer in pytorch3d's own picture plane, pixel by pixel.
"""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from sequences import BODY, make_observations, make_state

from slamhmr.components import require
from slamhmr.config import load_config
from slamhmr.errors import ConfigError, MissingAsset
from slamhmr.export.overlay import _meshes, _painter, draw_people
from slamhmr.export.rasterise import chosen, lacking, nearest_faces
from slamhmr.export.result import build_result

CPU = torch.device("cpu")


class Meshes:
    """pytorch3d.structures.Meshes, as far as the rasteriser looks at it."""

    def __init__(self, verts=None, faces=None, textures=None, *, verts_normals=None):
        assert isinstance(verts, list)
        assert isinstance(faces, list)
        assert len(verts) == len(faces) == 1
        assert verts[0].dtype == torch.float32
        assert verts[0].shape[1:] == (3,)
        assert faces[0].dtype == torch.int64
        assert faces[0].shape[1:] == (3,)
        assert verts[0].device == faces[0].device
        assert 0 <= int(faces[0].min()) <= int(faces[0].max()) < len(verts[0])
        self.verts, self.faces = verts[0], faces[0]


def plane_of(index, own, other):
    """NDC of a pixel centre counted from the right or the bottom; the shorter side is -1 to 1."""
    reach = 2.0 * own / min(own, other)
    return -reach / 2 + (reach * index + reach / 2) / own


def rasterize_meshes(
    meshes, image_size=256, blur_radius=0.0, faces_per_pixel=8, bin_size=None,
    max_faces_per_bin=None, perspective_correct=False, clip_barycentric_coords=False,
    cull_backfaces=False, z_clip_value=None, cull_to_frustum=False,
):  # fmt: skip
    assert isinstance(meshes, Meshes)
    assert isinstance(image_size, tuple)
    height, width = image_size
    assert isinstance(height, int)
    assert (blur_radius, faces_per_pixel, perspective_correct) == (0.0, 1, True)
    assert bin_size is None
    assert max_faces_per_bin >= len(meshes.faces)
    y, x = np.meshgrid(
        plane_of(np.arange(height)[::-1], height, width),  # row 0 is the top: +y is up
        plane_of(np.arange(width)[::-1], width, height),  # column 0 is the left: +x is left
        indexing="ij",
    )
    nearest = np.full((height, width), -1)
    zbuf = np.full((height, width), np.inf)
    for index, corners in enumerate(meshes.verts[meshes.faces].double().numpy()):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0 or min(az, bz, cz) < 0:
            continue
        span = (
            (y >= min(ay, by, cy)) & (y <= max(ay, by, cy))
            & (x >= min(ax, bx, cx)) & (x <= max(ax, bx, cx))
        )  # fmt: skip
        px, py = x[span], y[span]
        first = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
        second = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
        third = 1 - first - second
        depth = 1 / (first / az + second / bz + third / cz)
        inside = (first > 0) & (second > 0) & (third > 0) & (depth < zbuf[span])
        zbuf[span] = np.where(inside, depth, zbuf[span])
        nearest[span] = np.where(inside, index, nearest[span])
    shape = (1, height, width, 1)
    found = torch.from_numpy(nearest).reshape(shape)
    depths = torch.from_numpy(np.where(nearest < 0, -1, zbuf)).float().reshape(shape)
    return found, depths, torch.zeros(*shape, 3), torch.zeros(shape)


@pytest.fixture
def fake(monkeypatch):
    names = ("pytorch3d", "pytorch3d.structures", "pytorch3d.renderer", "pytorch3d.renderer.mesh")
    for name in (*names, "pytorch3d.renderer.mesh.rasterize_meshes"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["pytorch3d.structures"].Meshes = Meshes
    module = sys.modules["pytorch3d.renderer.mesh.rasterize_meshes"]
    module.rasterize_meshes = rasterize_meshes


@pytest.mark.parametrize("size", [(32, 20), (20, 32), (24, 24)])
def test_pixels_are_where_they_belong(fake, size):
    """A small triangle about one pixel's centre is seen in that pixel alone, not mirrored."""
    width, height = size
    corner = np.array([[[-0.4, -0.3], [0.4, -0.3], [0.0, 0.4]]]) + [5.5, 3.5]
    found = nearest_faces(corner, np.full((1, 3), 2.0), size, CPU)
    assert found.shape == (height, width)
    assert np.argwhere(found == 0).tolist() == [[3, 5]]


def test_the_nearer_triangle_wins_whatever_the_order(fake):
    corners = np.array([[[2.0, 2.0], [18.0, 2.0], [2.0, 18.0]]] * 2)
    for order in ([0, 1], [1, 0]):
        depths = np.array([[3.0] * 3, [2.0] * 3])[order]
        found = nearest_faces(corners, depths, (20, 20), CPU)
        assert found[5, 5] == order.index(1)
    assert (nearest_faces(corners[:0], depths[:0], (20, 20), CPU) == -1).all()


def test_the_same_picture_as_the_default_one(fake):
    state = make_state(2)
    result = build_result(
        state, BODY, make_observations(state), body_model="default", provenance={}
    )
    people = next(_meshes(result, BODY, 0.7))
    faces, intrinsics = BODY.faces.numpy(), result.intrinsics[0].numpy() / 2
    grey = np.full((120, 160, 3), 128, dtype=np.uint8)
    drawn = [
        draw_people(grey, people, faces, intrinsics, _painter(name, CPU)).astype(int)
        for name in ("opencv", "pytorch3d")
    ]
    bodies = [(image != 128).any(axis=-1) for image in drawn]
    assert bodies[0].sum() > 300
    assert (bodies[0] & bodies[1]).sum() > 0.8 * (bodies[0] | bodies[1]).sum()  # polygons' edges
    both = bodies[0] & bodies[1]
    assert np.median(np.abs(drawn[0] - drawn[1])[both]) <= 6
    assert np.abs(drawn[0] - drawn[1])[both].mean() < 12


def test_auto_draws_on_a_gpu_where_pytorch3d_is(monkeypatch):
    here, gpu = "slamhmr.export.rasterise.lacking", torch.device("cuda")
    monkeypatch.setattr(here, lambda _: [])
    assert [chosen("auto", d) for d in (CPU, gpu)] == ["opencv", "pytorch3d"]
    monkeypatch.setattr(here, lambda _: ["something"])
    assert chosen("auto", gpu) == "opencv"
    assert chosen("pytorch3d", CPU) == "pytorch3d"


def test_absent_pytorch3d_is_one_line_when_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("slamhmr.components.installed", lambda *_: None)
    with pytest.raises(MissingAsset, match=r"'pytorch3d' is not installed.*\.\[pytorch3d\]"):
        require(lacking("pytorch3d"))
    assert lacking("auto") == lacking("opencv") == []


def test_a_renderer_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"overlay\.renderer=opengl"):
        load_config([], ["overlay.renderer=opengl"])
