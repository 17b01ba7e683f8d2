"""Backends by name: "name" -> "module". Nothing is imported before it is asked for."""

import importlib
from types import ModuleType

from slamhmr.errors import ConfigError

# A backend module holds an `Options` dataclass (all its settings, with defaults) and one function:
# detect: `detect`, slam: `track_camera`, init: `initialise`; the `file` modules read instead.
DETECTORS: dict[str, str] = {
    "blazepose": "slamhmr.detect.blazepose",
    "file": "slamhmr.detect.file",
    "phalp": "slamhmr.detect.phalp",
    "rtmo": "slamhmr.detect.rtmo",
    "rtmpose": "slamhmr.detect.rtmpose",
    "vitpose": "slamhmr.detect.vitpose",
}
SLAM: dict[str, str] = {
    "auto": "slamhmr.slam.auto",
    "static": "slamhmr.slam.static",
    "rotation": "slamhmr.slam.rotation",
    "sfm": "slamhmr.slam.sfm",
    "droid": "slamhmr.slam.droid",
    "file": "slamhmr.slam.file",
}
INITIALISERS: dict[str, str] = {
    "lift": "slamhmr.init.lift",
    "geometric": "slamhmr.init.geometric",
    "file": "slamhmr.init.file",
    "tcmr": "slamhmr.init.tcmr",
    "wham": "slamhmr.init.wham",
    "gvhmr": "slamhmr.init.gvhmr",
    "hmr2": "slamhmr.init.hmr2",
    "prompthmr": "slamhmr.init.prompthmr",
    "sam3d_body": "slamhmr.init.sam3d_body",
    "wham_output": "slamhmr.init.wham_output",
}
TABLES: dict[str, dict[str, str]] = {"detect": DETECTORS, "slam": SLAM, "init": INITIALISERS}


def backend(kind: str, name: str) -> ModuleType:
    """Import the backend module `name` of `kind` (detect, slam, init).

    Raises ConfigError with the known names when there is none of that name.
    """
    table = TABLES[kind]
    if name not in table:
        raise ConfigError(f"{kind} '{name}' is unknown; available: {', '.join(sorted(table))}")
    return importlib.import_module(table[name])
