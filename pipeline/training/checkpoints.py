"""Weights and checkpoints on disk: written whole, loaded without ever unpickling code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.files import whole


def save(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as aside:
        torch.save(content, aside)


def load(path: Path) -> dict[str, Any]:
    """The dictionary in `path`; `UserError` when it is missing, damaged or holds anything but tensors and numbers."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, it is damaged or holds more than tensors and plain numbers; expected a saved state_dict"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); delete it to start afresh") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a state_dict")
    return content


def load_weights(classifier: torch.nn.Module, path: Path) -> None:
    """Fill `classifier` from a state_dict (model.pt) or from the best weights of a training checkpoint."""
    content = load(path)
    state = content["best"]["weights"] if "best" in content else content
    try:
        classifier.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        first = " ".join(str(error).split())
        raise UserError(f"{path}: the weights do not fit the configured model ({first[:300]})") from None
