"""Every test runs with one torch thread; jaxtyping and beartype check our signatures."""

from jaxtyping import install_import_hook

# Before anything of ours is imported, so that signatures and dataclass fields are checked in tests.
install_import_hook(["slamhmr", "priors"], "typechecker.check")

import torch  # noqa: E402

torch.set_num_threads(1)
