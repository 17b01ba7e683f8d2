"""SLAHMR's preprocessing tree (vye16/slahmr@58518fe) from a known truth."""

import json
from pathlib import Path

import cv2
import numpy as np
import roma
import torch
from foreign_case import Truth
from phalp_case import slots


def write_tree(root: Path, truth: Truth, name: str = "park", cuts: tuple[int, ...] = ()) -> Path:
    """The tree below `root`; shots begin at `cuts`, each with cameras of its own."""
    seen = truth.observations
    width, height = seen.image_size
    images, folder = root / "images" / name, root / "slahmr"
    images.mkdir(parents=True)
    count = seen.confidence.shape[1]
    stems = [f"{t + 1:06d}" for t in range(count)]
    for stem in stems:
        cv2.imwrite(str(images / f"{stem}.jpg"), np.zeros((height, width, 3), np.uint8))
    shots = np.cumsum([t in cuts for t in range(count)])
    (folder / "shot_idcs").mkdir(parents=True)
    known = {f"{stem}.jpg": int(shot) for stem, shot in zip(stems, shots, strict=True)}
    (folder / "shot_idcs" / f"{name}.json").write_text(json.dumps(known))
    for shot in range(len(cuts) + 1):
        target = folder / "cameras" / name / f"shot-{shot}" / "cameras.npz"
        target.parent.mkdir(parents=True)
        mine = shots == shot
        np.savez(
            target,
            height=np.float32(height),
            width=np.float32(width),
            focal=truth.cameras.intrinsics[:, :2].mean().numpy(),
            intrins=truth.cameras.intrinsics.numpy()[mine],
            w2c=torch.linalg.inv(truth.cameras.world_from_cam).numpy()[mine],
        )
    focal = (width + height) / 2
    for n, track in enumerate(seen.person_id.tolist()):
        own = folder / "track_preds" / name / f"{track:03d}"
        own.mkdir(parents=True)
        places = truth.transl(n, (focal, focal, width / 2, height / 2))
        for t, stem in enumerate(stems):
            people = [{"pose_keypoints_2d": slots(truth, n, t).tolist()}]
            (own / f"{stem}_keypoints.json").write_text(json.dumps({"people": people}))
            pose = np.concatenate([truth.pose[n, t].numpy(), np.zeros((2, 3))])
            body = {
                "betas": truth.betas[n].tolist(),
                "body_pose": pose.tolist(),
                "global_orient": roma.rotmat_to_rotvec(truth.root[n, t]).tolist(),
                "cam_trans": places[t].tolist(),
            }
            (own / f"{stem}_smpl.json").write_text(json.dumps(body))
    return root
