"""The way to pycolmap: imported when it is needed, and its signal handlers put aside."""

from typing import Any

from slamhmr.preemption import WATCH


def load_pycolmap() -> Any:
    """The module. Its first import puts glog's handler in the place of ours for SIGTERM."""
    import pycolmap

    WATCH.install()
    return pycolmap
