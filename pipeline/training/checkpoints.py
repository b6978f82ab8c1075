"""Weights and checkpoints on disk: written whole, loaded without ever unpickling code."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.files import damaged, whole
from pipeline.models.base import Model


def save(path: Path, content: dict[str, Any]) -> None:
    # Through memory: PyTorch's own writer hides why it could not write (a full disk is a RuntimeError), and it puts the
    # file's name, here a temporary one, inside the file.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole(path) as aside:
        aside.write_bytes(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """The dictionary in `path`; `UserError` when it is missing, damaged or holds anything but tensors and numbers."""
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, it is damaged or holds more than tensors and plain numbers; expected a saved state_dict"
        ) from None
    except Exception as error:  # damaged bytes make PyTorch raise about anything
        raise damaged(path, "checkpoint", error) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a state_dict")
    return content


def _check_sums(path: Path) -> None:
    """Hold a checkpoint's parts against the sums stored with them, which PyTorch does not do."""
    if zipfile.is_zipfile(path):  # since PyTorch 1.6; an older state_dict has no sums
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"{broken} is damaged")


def load_weights(model: Model, path: Path) -> None:
    """Fill `model` from its state (model.pt) or from the weights that a training checkpoint would keep."""
    content = load(path)
    state = content["best"]["weights"] or content["weights"] if "best" in content else content
    try:
        model.load(state)
    except ValueError as error:
        raise UserError(f"{path}: the weights do not fit the configured model ({error})") from None
