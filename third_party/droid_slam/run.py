"""DROID-SLAM over prepared frames: `run.py IN.npz OUT.npz`, in any environment that has it.

Written against princeton-vl/DROID-SLAM@2dfd39f (demo.py, droid_slam/*.py) and @8016d2b, whose calls
are the same: `Droid(args)`, `track(tstamp, image (1,3,H,W) uint8 BGR, intrinsics=(4,))`,
`terminate(stream)` -> (F,7) numpy, camera to world, tx ty tz qx qy qz qw. Imports nothing of
slamhmr, which runs this very file in its own process too. Python 3.8 and newer.

IN.npz: `intrinsics` (4,) fx fy cx cy of the prepared frames, px, centre of the first pixel at 0;
`numbers` (F,) of the frames in the clip, ascending; `people` (F, H/8, W/8) bool, true on people, or
no such array; `settings`, JSON: `repository`, `weights`, `frames` (an .npy file, (F,H,W,3) uint8
BGR), `droid` (what Droid's args hold). OUT.npz: `poses` (F,7) as `terminate` gives them and
`keyframes` (); or `refused`, a sentence why there are none.
"""

import argparse
import json
import os
import sys
import threading

import numpy as np

# Slots that `terminate` fills behind the keyframes (trajectory_filler.py: 16 frames at once), and
# the one that the front end prepares for the next keyframe.
RESERVED = 17
# Share of the picture that must show background for its motion to be measured there alone.
LEAST_BACKGROUND = 0.05


def run(arrays, settings):
    """Poses of all frames, or the reason why there are none."""
    import torch

    wrong = wrong_weights(settings["weights"])
    if wrong is not None:
        return {"refused": np.array(wrong)}
    Droid = droid_class(settings["repository"])
    frames = np.load(settings["frames"], mmap_mode="r")
    intrinsics = torch.as_tensor(np.asarray(arrays["intrinsics"]), dtype=torch.float32)
    numbers = [int(number) for number in arrays["numbers"]]

    def stream():
        for row, number in enumerate(numbers):
            image = torch.from_numpy(np.array(frames[row])).permute(2, 0, 1)[None].contiguous()
            yield number, image, intrinsics

    args = argparse.Namespace(**settings["droid"])
    args.weights, args.image_size = settings["weights"], list(frames.shape[1:3])
    droid = Droid(args)
    people = People(droid, arrays["people"]) if "people" in arrays else None
    for row, (number, image, lens) in enumerate(stream()):
        if droid.video.counter.value > args.buffer - RESERVED:
            return {"refused": np.array(full(args.buffer, number, len(numbers) - row))}
        if people is not None:
            people.now = row
        droid.track(number, image, intrinsics=lens)
        if people is not None:
            people.follow()
        if row % 100 == 0:
            print("frame", number, "keyframes", droid.video.counter.value, flush=True)
    keyframes = droid.video.counter.value
    if not droid.frontend.is_initialized:
        return {"refused": np.array(still(keyframes, args.warmup, args.filter_thresh))}
    if people is not None:
        people.close(droid)
    poses = np.asarray(droid.terminate(stream()), dtype=np.float64)
    return {"poses": poses, "keyframes": np.array(keyframes)}


def wrong_weights(path):
    """Why the weights are not to be opened, or None: their reader runs what it finds in them.

    DROID-SLAM calls torch.load without weights_only, which before torch 2.6 unpickles everything.
    """
    import pickle

    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except TypeError:
        return (
            "torch " + torch.__version__ + " cannot read " + path + " without running what is "
            "in it; torch 1.13 or newer can"
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as e:
        return path + " holds no weights: " + " ".join(str(e).split())[:200]
    return None


def droid_class(repository):
    """The class Droid of a clone, whose modules import each other by bare names."""
    for folder in (repository + "/droid_slam", repository):
        if folder not in sys.path:
            sys.path.append(folder)
    from droid import Droid

    return Droid


def full(buffer, number, left):
    """Sentence on a buffer of keyframes that is too small."""
    return (
        f"the buffer of {buffer} keyframes is full at frame {number} with {left} frames to come; "
        "raise options.droid.buffer, stride or filter_thresh, or split the clip"
    )


def still(keyframes, warmup, thresh):
    """Sentence on a clip in which too little moves."""
    return (
        f"only {keyframes} of the {warmup} keyframes that DROID-SLAM starts with were found: the "
        f"background hardly moves (options.droid.filter_thresh={thresh:g} px at 1/8 size); lower "
        "it, or say camera: static in sequence.yaml"
    )


class People:
    """Takes people out of what the network says, without a change to its code.

    Its update operator, one module that the motion filter, the front end, the back end and the
    filler share, gives every cell of an edge's first frame a flow and the confidences of it that
    bundle adjustment weighs by. A forward hook sets those of people's cells to 0; in the motion
    filter, which asks for no confidence, it leaves the mean over the background alone.
    Which frame a keyframe's slot holds is followed through `rm_keyframe`, which moves later ones
    down by one (its time stamps are not moved at 8016d2b).
    """

    def __init__(self, droid, people):
        import torch

        self.background = torch.from_numpy(~np.asarray(people))
        self.video = droid.video
        self.slots = []  # row of the frame in every keyframe's slot
        self.now = 0  # row of the frame that is being tracked
        self.closed = False
        self.remove = droid.frontend.graph.rm_keyframe
        droid.frontend.graph.rm_keyframe = self.removed
        droid.net.update.register_forward_hook(self.hook)

    def follow(self):
        """Take note of a keyframe that was added since."""
        while not self.closed and len(self.slots) < self.video.counter.value:
            self.slots.append(self.now)

    def close(self, droid):
        """No keyframe comes or goes any more; the slots behind them are none.

        Lets go of the front end's graph, so that `terminate` frees its memory on the GPU.
        """
        self.follow()
        self.closed = True
        del droid.frontend.graph.rm_keyframe
        self.remove = None

    def removed(self, slot):
        """In place of the graph's `rm_keyframe`."""
        self.follow()
        self.remove(slot)
        del self.slots[int(slot)]

    def hook(self, module, given, made):
        """Of `update(net, inp, corr, motion, ii, jj)`, and of the filter's, without the last."""
        import torch

        self.follow()
        delta, weight = made[1], made[2]
        self.background = self.background.to(delta.device)
        if len(made) == 3:
            keep = self.background[self.slots[-1]] & self.background[self.now]
            share = keep.float().mean().clamp_min(LEAST_BACKGROUND)
            return made[0], delta * (keep[..., None] / share).to(delta.dtype), weight
        rows = torch.as_tensor(self.slots, device=delta.device)[given[4].to(delta.device)]
        keep = self.background[rows][None, ..., None]  # (1, edges, H/8, W/8, 1)
        return (made[0], delta, weight * keep.to(weight.dtype), *made[3:])


def end_with_parent():
    """End as soon as slamhmr, which holds the other end of standard input, is gone."""

    def wait():
        while os.read(0, 1) != b"":
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main():
    """Read IN.npz, run, write OUT.npz."""
    if os.environ.get("SLAMHMR_ATTACHED"):
        end_with_parent()
    with np.load(sys.argv[1], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    settings = json.loads(str(arrays.pop("settings")))
    np.savez(sys.argv[2], **run(arrays, settings))


if __name__ == "__main__":
    main()
