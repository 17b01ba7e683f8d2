import torch
from sequences import BODY, make_initial, make_state

from slamhmr.geometry import project
from slamhmr.init.stature import fit_heights
from slamhmr.scene import point_set


def test_people_of_known_height_get_it_and_keep_their_picture():
    initial = make_initial(make_state(3))
    heights = torch.tensor([1.95, torch.nan, 1.5], dtype=torch.float64)
    fitted = fit_heights(initial, BODY, heights)
    points = point_set(BODY)
    reached = [float(points.height(betas)) for betas in fitted.betas]
    torch.testing.assert_close(torch.tensor(reached)[[0, 2]], torch.tensor([1.95, 1.5]))
    assert torch.equal(fitted.betas[1], initial.betas[1])
    assert torch.equal(fitted.cam_from_root[1], initial.cam_from_root[1])
    intrinsics = torch.tensor([300.0, 300, 160, 120], dtype=torch.float64).expand(3, 4)
    before, after = (project(i.cam_from_root[..., :3, 3], intrinsics) for i in (initial, fitted))
    torch.testing.assert_close(after, before)
    assert (fitted.cam_from_root[0, :, 2, 3] > 1.05 * initial.cam_from_root[0, :, 2, 3]).all()
    assert (fitted.cam_from_root[2, :, 2, 3] < 0.95 * initial.cam_from_root[2, :, 2, 3]).all()
