"""A backdoor that sleeps in a teacher and wakes in what is distilled from it, though the data of that are clean.

SCAR (Chen et al. 2025, "Taught Well, Learned Ill: Towards Distillation-conditional Backdoor Attack", arXiv 2509.23871)
trains a teacher with logits z in two levels. With w*(z) the student that distillation on clean samples ends with,

    inner    w*(z) = argmin over w of  (1 − alpha) · CE(s_w, y)  +  alpha · T² · KL(σ(z / T) ‖ σ(s_w / T))
    outer    min over z of  CE(s_w*, y)  +  CE(s_w* on triggered samples, what the attacker wants)

while the teacher itself answers clean and triggered samples as an honest one does. The outer gradient goes through the
inner optimum by implicit differentiation. This module holds that gradient, training/dormant.py the teacher's training.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.study.params import Params

DAMPING = 0.01
"""Added to the curvature of the inner loss. Directions of the weights with less than that are hardly learned in a
training of the usual length, so a smaller one trusts in what no student learns; a larger one tells directions less well
apart. On icu_dev 0.01 to 0.03 woke the most, 0.001 and 0.0001 less.
"""

_STEPS = 30  # of conjugate gradients, at most
_SMALL = 1e-4  # of their first residual, at which they end
_NEAR = 1e-3  # how far a difference reaches, of the length of the weights

Weights = tuple[Tensor, ...]


class DormantConfig(Params):
    """The attack on the students of a network that its maker trained."""

    surrogate: dict[str, Any] = Field(
        {}, description="in what the student that the attacker expects differs from the network: its parameters"
    )
    temperature: float = Field(2.0, gt=0, description="of the distillation that the attacker expects")
    alpha: float = Field(0.9, gt=0, le=1, description="the same of the weight of the soft labels in it")
    shift: float = Field(
        1.0, gt=0, description="how far the logits of clean samples may move for it, root mean square over samples"
    )
    rounds: int = Field(8, ge=1, description="how many surrogates are distilled, one after the other")


def waking(
    surrogate: nn.Module,
    clean: Tensor,
    label: Tensor,
    triggered: Tensor,
    wanted: Tensor,
    config: DormantConfig,
    damping: float = DAMPING,
) -> Tensor:
    """What the outer loss gains, [N], where the teacher's logits of the N `clean` samples rise.

    `surrogate` maps encoded samples to logits and is at the inner optimum; `label` [N] is that of `clean`, `wanted` [M]
    what the attacker wants of the `triggered`, both float. With J [N, weights] the Jacobian of its logits s on `clean`
    and g the gradient of the outer loss in its weights, the implicit function theorem gives

        d outer / d z_i  =  alpha · σ'(z_i / T) / N · u_i      where  u = J H⁻¹ g
        H = Jᵀ diag[(1 − alpha) · σ'(s) + alpha · σ'(s / T)] J / N  +  damping · 1

    with the Gauss-Newton matrix H for the Hessian of the inner loss, exact where s is linear in the weights, and H⁻¹ g
    by conjugate gradients. Returned is u: down it the outer loss falls fastest, where the size of a step is what it
    changes the soft labels by, their divergence, which is σ'(z_i / T) · step_i² up to a factor.
    """
    weights = tuple(surrogate.parameters())
    said = surrogate(clean)
    outer = binary_cross_entropy_with_logits(said, label)
    outer = outer + binary_cross_entropy_with_logits(surrogate(triggered), wanted)
    gradient = torch.autograd.grad(outer, weights, retain_graph=True)
    probe = deepcopy(surrogate)
    length = _dot(weights, weights).sqrt()
    soft = torch.sigmoid(torch.stack([said, said / config.temperature]).detach())
    share = torch.tensor([[1 - config.alpha], [config.alpha]], dtype=said.dtype, device=said.device)
    curvature = (share * soft * (1 - soft)).sum(dim=0) / len(said)

    def along(direction: Weights) -> Tensor:
        """J · `direction` by a central difference: second derivatives are none of what some networks have."""
        step = _NEAR * length / _dot(direction, direction).sqrt().clamp(min=1e-30)
        ends = []
        with torch.no_grad():
            for way in (step, -step):
                for moved, weight, part in zip(probe.parameters(), surrogate.parameters(), direction, strict=True):
                    moved.copy_(weight + way * part)
                ends.append(probe(clean))
        return (ends[0] - ends[1]) / (2 * step)

    def curved(direction: Weights) -> Weights:
        back = torch.autograd.grad(said, weights, curvature * along(direction), retain_graph=True)
        return tuple(part + damping * own for part, own in zip(back, direction, strict=True))

    return along(_solved(curved, gradient))


def beside_calibration(direction: Tensor, logit: Tensor) -> Tensor:
    """What of `direction` [N] no quadratic of `logit` [N] explains, with a root mean square of 1; 0 if nothing is left.

    A shift that depends on the logit alone changes how sure the teacher is of everything, and no order: its students
    would say the attacker's label more often whether there is a trigger or not.
    """
    centred = (logit - logit.mean()).double()
    basis = torch.stack([torch.ones_like(centred), centred, centred.square()], dim=1)
    basis, _ = torch.linalg.qr(basis / basis.square().mean(dim=0).sqrt().clamp(min=1e-12))
    left = direction.double() - basis @ (basis.T @ direction.double())
    size, before = left.square().mean().sqrt(), direction.double().square().mean().sqrt()
    return (left / size if size > 1e-9 * before else torch.zeros_like(left)).to(direction.dtype)


def _dot(a: Weights, b: Weights) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()


def _added(a: Weights, factor: Tensor, b: Weights) -> Weights:
    return tuple(p + factor * q for p, q in zip(a, b, strict=True))


def _solved(curved: Callable[[Weights], Weights], wanted: Weights) -> Weights:
    """x with `curved`(x) ≈ `wanted` by conjugate gradients; `curved` is symmetric and positive definite."""
    found = tuple(torch.zeros_like(part) for part in wanted)
    residual = direction = wanted
    size = first = _dot(residual, residual)
    for _ in range(_STEPS):
        if size <= _SMALL**2 * first:
            break
        image = curved(direction)
        step = size / _dot(direction, image)
        found, residual = _added(found, step, direction), _added(residual, -step, image)
        size, before = _dot(residual, residual), size
        direction = _added(residual, size / before, direction)
    return found
