"""The BlazePose networks as files: taken out of a public wheel once, checked, kept in a user cache.

Source: PyPI mediapipe 0.10.21 (Apache-2.0), of which only the two .tflite files are unpacked; the
package itself is never imported. The heavy landmark network is not in the wheel and comes from a
local file (npm package @mediapipe/pose 0.5.1675469404, Apache-2.0).
"""

import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from slamhmr.components import Lack, cache_root, lacking_file, require
from slamhmr.errors import MissingAsset

log = logging.getLogger(__name__)

WHEEL = "mediapipe==0.10.21"
WHEEL_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
DOWNLOAD_TIMEOUT = 300  # s, 36 MB at 1 Mbit/s
NPM_PACKAGE = "@mediapipe/pose@0.5.1675469404"
DETECTOR = "pose_detection.tflite"
FULL, HEAVY = "pose_landmark_full.tflite", "pose_landmark_heavy.tflite"
SHA256: dict[str, str] = {
    DETECTOR: "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    FULL: "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    HEAVY: "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
}
IN_WHEEL = (DETECTOR, FULL)


def cache_folder() -> Path:
    """Folder of fetched models: `$SLAMHMR_CACHE/blazepose`, else `~/.cache/slamhmr/blazepose`."""
    return cache_root() / "blazepose"


def find_models(variant: str, folder: Path | None) -> tuple[Path, Path]:
    """Paths of the detector and of the landmark network `full` or `heavy`, checked by sha256.

    Looks into `folder` when given and nowhere else, otherwise into the cache, which is filled
    from PyPI when a file of the wheel is missing. Raises MissingAsset naming the file and where
    to get it.
    """
    names = _names(variant)
    place = folder or cache_folder()
    if folder is None and any(_fetchable(place / name) for name in names):
        _fill_cache(place)
    require([lack for name in names for lack in _lacking(place, name)])
    return place / names[0], place / names[1]


def lacking_models(variant: str, folder: Path | None) -> list[Lack]:
    """What of the detector and the landmark network `variant` is neither there nor fetched."""
    place = folder or cache_folder()
    names = [name for name in _names(variant) if folder is not None or not _fetchable(place / name)]
    return [lack for name in names for lack in _lacking(place, name)]


def _names(variant: str) -> tuple[str, str]:
    return DETECTOR, f"pose_landmark_{variant}.tflite"


def _fetchable(path: Path) -> bool:
    """True for a file of the cache that is not there yet and that the wheel holds."""
    return path.name in IN_WHEEL and not path.is_file()


def _lacking(folder: Path, name: str) -> list[Lack]:
    """A model file that is not there or whose sha256 is not the published one."""
    return lacking_file(folder / name, "BlazePose network", _remedy(name), sha256=SHA256[name])


def _remedy(name: str) -> str:
    if name in IN_WHEEL:
        return (
            f"unpack it from 'pip download --no-deps {WHEEL}' or leave 'options.blazepose.models' "
            "unset to have it fetched"
        )
    return (
        f"unpack it from 'npm pack {NPM_PACKAGE}' into that folder, "
        "or use the 'full' landmark model"
    )


def _fill_cache(cache: Path) -> None:
    """Download the wheel to a scratch folder and put its model files into the cache atomically."""
    log.info("fetching the BlazePose networks from PyPI (%s, 36 MB, once) into %s", WHEEL, cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _unpack(_download_wheel(Path(scratch)), Path(scratch), cache)
    except OSError as e:
        raise MissingAsset(
            f"model cache '{cache}' cannot be written: {e}; set SLAMHMR_CACHE to another folder"
        ) from e


def _download_wheel(scratch: Path) -> Path:
    """Wheel file fetched by pip, whatever the running Python and platform are."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", "311"]
    for platform in WHEEL_PLATFORMS:
        command += ["--platform", platform]
    command += ["--dest", str(scratch), WHEEL]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise MissingAsset(_no_download(f"no answer in {DOWNLOAD_TIMEOUT} s")) from e
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) == 0:
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise MissingAsset(_no_download(errors[-1]))
    return wheels[0]


def _no_download(reason: str) -> str:
    return (
        f"the BlazePose networks could not be fetched ('pip download {WHEEL}': {reason}); "
        "connect to PyPI, or set 'options.blazepose.models' to a folder that holds "
        + " and ".join(IN_WHEEL)
    )


def _unpack(wheel: Path, scratch: Path, cache: Path) -> None:
    """Copy the model files of a wheel into the cache, checked before they are renamed."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = {Path(name).name: name for name in archive.namelist()}
            for name in IN_WHEEL:
                if name not in members:
                    raise MissingAsset(f"'{wheel.name}' holds no '{name}'")
                (scratch / name).write_bytes(archive.read(members[name]))
    except zipfile.BadZipFile as e:
        raise MissingAsset(_no_download(f"'{wheel.name}' is damaged")) from e
    for name in IN_WHEEL:
        require(_lacking(scratch, name))
        (scratch / name).replace(cache / name)
