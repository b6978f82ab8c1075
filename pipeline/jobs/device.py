"""The device that a stage computes on, `device` of the configuration.

On a CPU a result has the same bits in every process on machines of one kind. On a GPU it has the same bits on GPUs of
one kind, and may differ from a CPU's in the last digits.
"""

import os

import torch

from pipeline.errors import UserError


def choose(name: str) -> torch.device:
    """The device for "cpu", "cuda" (the first GPU that is visible) or "auto" (a GPU where there is one, else the CPU).

    Raises `UserError` for "cuda" where torch finds no GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"device: cuda given, but torch {torch.__version__} finds no GPU on this machine; expected one, "
            "or device auto or cpu"
        )
    # The same result every time; cuBLAS reads the variable when it starts.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch makes it one
    # Full single precision, as on a CPU: TensorFloat-32 keeps 10 bits of a mantissa.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda:0")


def facts(device: torch.device) -> dict[str, str]:
    """For run_metadata.json: the device, and on a GPU what that means for the numbers."""
    if device.type == "cpu":
        return {"device": "cpu"}
    return {
        "device": f"{device} {torch.cuda.get_device_name(device)}",
        "device_note": "computed on a GPU: results may differ in the last digits from a CPU's or another GPU's",
    }
