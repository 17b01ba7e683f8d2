"""Out of memory, of the processor or of a GPU: one line instead of somebody else's traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from slamhmr.errors import BackendError, SlamhmrError

# What the libraries that backends run on say when memory is out; none of them is imported here.
# torch: OutOfMemoryError and, from cuBLAS and cuDNN, RuntimeError; onnxruntime: its own exceptions.
GPU_WORDS = (
    "cuda out of memory", "cuda error: out of memory", "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed", "cudaerrormemoryallocation", "bfcarena::allocaterawinternal",
)  # fmt: skip
HOST_WORDS = (
    "defaultcpuallocator: can't allocate", "not enough memory", "failed to allocate memory",
    "std::bad_alloc", "cannot allocate memory",
)  # fmt: skip


@contextmanager
def memory_told(what: str) -> Iterator[None]:
    """Turns "out of memory" of whatever `what` ("detect=vitpose") runs on into one BackendError."""
    try:
        yield
    except Exception as e:  # onnxruntime's have no narrower base; what is not memory passes
        where = None if isinstance(e, SlamhmrError) else exhausted(e)
        if where is None:
            raise
        raise BackendError(
            f"{what}: out of memory of the {where}; take a smaller network or batch "
            "(options of the backend), fewer frames (frames: [first, last] in sequence.yaml), or a "
            "machine with more (slamhmr doctor says what this one has)"
        ) from e


def exhausted(error: BaseException) -> str | None:
    """Whose memory is out by an error's own words, "GPU" or "processor"; None: it is not that."""
    words = str(error).lower()
    if type(error).__name__ == "OutOfMemoryError" or any(word in words for word in GPU_WORDS):
        return "GPU"
    if isinstance(error, MemoryError) or any(word in words for word in HOST_WORDS):
        return "processor"
    return None
