"""Package metadata; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "torch>=2.6,<2.14",
    "numpy>=1.26",
    "scipy>=1.11",
    "opencv-python-headless>=4.9",
    "av>=12",
    "roma>=1.5",
    "omegaconf>=2.4",
    "tqdm>=4.60",
    "threadpoolctl>=3.1",
    "jaxtyping>=0.3",
    "ai-edge-litert>=2.0",
    "pycolmap>=4.0,<5",
    "safetensors>=0.4",
    "packaging>=22",
    "submitit>=1.5",
]
EXTRAS = {
    "smpl": ["smplx>=0.1.28"],
    "body": ["anny==0.6.2"],
    "rtmlib": ["rtmlib>=0.0.16,<0.1", "onnxruntime>=1.17"],
    "batch": ["pyarrow>=15"],
    # Compiled against the torch that is there: pip install --no-build-isolation ".[droid]". Its
    # modules come from a clone, see third_party/droid_slam/README.md.
    "droid": [
        "lietorch @ git+https://github.com/princeton-vl/lietorch.git"
        "@0fa9ce8ffca86d985eca9e189a99690d6f3d4df6",
        "droid-backends @ git+https://github.com/princeton-vl/DROID-SLAM.git"
        "@2dfd39f0dcad44012ca7bbb8aa70b55edbfa9c99",
        "torch-scatter>=2.1",
        "matplotlib>=3.5",
    ],
    # Compiled against the torch that is there: pip install --no-build-isolation ".[pytorch3d]".
    "pytorch3d": ["pytorch3d @ git+https://github.com/facebookresearch/pytorch3d.git@V0.7.8"],
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "beartype>=0.19",
        "hypothesis>=6",
        "pillow>=10",
        "joblib>=1.3",
    ],
    "dev": ["ruff>=0.6", "mypy>=1.11", "types-PyYAML", "types-tqdm", "pre-commit"],
}

setup(
    name="slamhmr",
    version="0.1.0",
    description="Everybody's body and path in one metric world, from video of a moving camera",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["slamhmr*", "priors*"]),
        "slamhmr.configs",
        "slamhmr.third_party",
    ],
    package_dir={"slamhmr.configs": "configs", "slamhmr.third_party": "third_party"},
    package_data={
        "slamhmr": ["assets/*.npz", "assets/*.json", "py.typed"],
        "slamhmr.configs": ["*.yaml", "*/*.yaml"],
        "slamhmr.third_party": ["README.md", "*/*.md", "*/*.py", "*/*.txt"],
        "priors": ["weights/*", "training/held_out.txt"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["slamhmr=slamhmr.cli:main"]},
)
