"""Synthetic ICU stays from a generative model that is simple enough for the exact probability of death.

Each stay has a latent severity s and trend r, both N(0, 1) and independent; at hour t it is as ill as
    z(t) = s + TREND · r · τ(t),      τ(t) from −1 (first hour) to 1 (last hour).
    values     y[t, j] = mu[j] + a[j] · z(t) + b[j] + e[t, j],  b ~ N(0, C) per stay, e ~ N(0, σ[j]²) per hour; the
               clinical value is a sigmoid of y between two bounds, so it is in range and skewed towards the far bound
    measured   panel k is measured at hour t with probability sigmoid(α[k] + γ[k] · z(t)): the sicker, the more often
    label      1 (died in hospital) with probability sigmoid(η), η linear in s, r, age and type of admission
data/README.md describes the cohort that comes out and what it is good for.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field, model_validator
from scipy.special import expit, logit

from pipeline.cohorts.catalog import Entry
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.strata import SEX_AND_AGE, Strata, check_static, strata_of_static
from pipeline.seeding import generator


class Signal(NamedTuple):
    """A vital sign or lab; the four figures after the range hold near the typical value, in the signal's unit."""

    name: str
    unit: str
    low: float
    high: float
    typical: float  # median at average severity
    severity: float  # change per unit of z
    between: float  # standard deviation between the stays' baselines
    within: float  # standard deviation from hour to hour
    panel: str  # what is measured together


# sbp and dbp are placed above and below the stay's mean_bp of that hour, so their figures are those at a given mean_bp.
SIGNALS = (
    Signal("heart_rate", "1/min", 20, 220, 84, 11, 10, 6, "heart_rate"),
    Signal("sbp", "mmHg", 30, 280, 118, -2, 7, 6, "blood_pressure"),
    Signal("dbp", "mmHg", 10, 200, 61, -1, 5, 4, "blood_pressure"),
    Signal("mean_bp", "mmHg", 30, 200, 80, -9, 7.5, 6, "blood_pressure"),
    Signal("resp_rate", "1/min", 4, 60, 18, 3.6, 3, 2.5, "resp_rate"),
    Signal("temperature", "°C", 32, 42, 37, 0.25, 0.4, 0.2, "temperature"),
    Signal("spo2", "%", 50, 100, 97, -1, 0.9, 0.8, "spo2"),
    Signal("glucose", "mg/dL", 30, 800, 132, 13, 23, 20, "glucose"),
    Signal("lactate", "mmol/L", 0.2, 30, 1.5, 0.75, 0.45, 0.3, "blood_gas"),
    Signal("creatinine", "mg/dL", 0.1, 20, 1, 0.38, 0.4, 0.1, "chemistry"),
    Signal("bun", "mg/dL", 2, 200, 20, 7.5, 8, 2, "chemistry"),
    Signal("sodium", "mmol/L", 110, 175, 139, 0.6, 4, 1.5, "chemistry"),
    Signal("potassium", "mmol/L", 2, 9, 4.1, 0.16, 0.35, 0.25, "chemistry"),
    Signal("bicarbonate", "mmol/L", 5, 50, 24, -2.3, 2.3, 1.2, "chemistry"),
    Signal("chloride", "mmol/L", 80, 140, 104, 0.4, 4, 1.5, "chemistry"),
    Signal("haemoglobin", "g/dL", 4, 20, 10.8, -0.6, 1.5, 0.4, "blood_count"),
    Signal("wbc", "10⁹/L", 0.5, 80, 11, 2.6, 3.2, 1, "blood_count"),
    Signal("platelets", "10⁹/L", 5, 1000, 205, -32, 70, 15, "blood_count"),
    Signal("bilirubin", "mg/dL", 0.1, 50, 0.8, 0.35, 0.45, 0.08, "bilirubin"),
    Signal("ph", "", 6.8, 7.8, 7.39, -0.04, 0.04, 0.025, "blood_gas"),
    Signal("urine_output", "mL/h", 0, 1000, 80, -20, 24, 25, "urine_output"),
)
# Per panel: the share of hours in which it is measured at average severity, and γ.
PANELS = {
    "heart_rate": (0.95, 0.2),
    "blood_pressure": (0.93, 0.25),
    "resp_rate": (0.94, 0.2),
    "temperature": (0.91, 0.2),
    "spo2": (0.94, 0.2),
    "glucose": (0.22, 0.25),
    "blood_gas": (0.15, 0.5),
    "chemistry": (0.15, 0.3),
    "blood_count": (0.12, 0.25),
    "bilirubin": (0.10, 0.35),
    "urine_output": (0.90, 0.2),
}
# Baselines that go together: each group is one common factor, each figure the correlation of a baseline with it.
BASELINE_FACTORS = (
    {"mean_bp": 0.7, "heart_rate": -0.4},
    {"creatinine": 0.85, "bun": 0.85, "urine_output": -0.4},
    {"sodium": 0.85, "chloride": 0.85},
    {"ph": 0.7, "bicarbonate": 0.7},
)
STATIC = (
    Feature("age", "years", 18, 100, static=True),
    Feature("sex", "", 0, 1, ("female", "male"), static=True),
    Feature("admission_type", "", 0, 2, ("elective", "urgent", "emergency"), static=True),
)
FEATURES = tuple(Feature(signal.name, signal.unit, signal.low, signal.high) for signal in SIGNALS) + STATIC
N_STEPS = 24
TREND = 0.8
HOUR = np.linspace(-1, 1, N_STEPS)  # τ(t)
INTERCEPT, PER_SEVERITY, PER_TREND, PER_AGE = -3.5, 2.0, 0.7, 0.35  # age per 16 years from 62
PER_ADMISSION = np.array([0, 0.25, 0.5])
ADMISSIONS = (0.2, 0.25, 0.55)  # shares of the types
PLANNED_STAYS = (0.87, 0.085, 0.03, 0.015)  # share of patients with 1, 2, 3, 4 stays, were they all to survive

_J = len(SIGNALS)
_SBP, _DBP, _MEAN_BP = ([signal.name for signal in SIGNALS].index(name) for name in ("sbp", "dbp", "mean_bp"))
_PANEL = np.array([list(PANELS).index(signal.panel) for signal in SIGNALS])
_FIRST = np.unique(_PANEL, return_index=True)[1]  # one signal of each panel: it shows when the panel was measured
_ALPHA, _GAMMA = logit([share for share, _ in PANELS.values()]), np.array([gamma for _, gamma in PANELS.values()])


def _bounds(mean_bp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the signals lie between, two arrays [..., J], at a mean_bp of [...]: dbp < mean_bp < sbp always."""
    lower, upper = (
        np.tile([getattr(signal, end) for signal in SIGNALS], (*np.shape(mean_bp), 1)).astype(float)
        for end in ("low", "high")
    )
    lower[..., _SBP] = upper[..., _DBP] = mean_bp
    return lower, upper


def _parameters() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """mu [J], a [J], C [J, J] and σ [J] from the clinical figures of `SIGNALS`."""
    typical, severity, between, within = np.array([signal[4:8] for signal in SIGNALS]).T
    lower, upper = _bounds(typical[_MEAN_BP])
    share = (typical - lower) / (upper - lower)
    slope = (upper - lower) * share * (1 - share)  # of the sigmoid, in clinical units
    loading = np.array([[factor.get(signal.name, 0) for factor in BASELINE_FACTORS] for signal in SIGNALS])
    correlation = loading @ loading.T
    np.fill_diagonal(correlation, 1)
    tau = between / slope
    return logit(share), severity / slope, correlation * np.outer(tau, tau), within / slope


_MU, _A, _C, _SIGMA = _parameters()


def generate(n_stays: int, seed: int, name: str = "icu_dev") -> Cohort:
    """Simulate a cohort of `n_stays` stays, [n_stays, 24, 24] in `FEATURES` order; the same for the same arguments.

    A patient's stays follow each other (sample_id counts up, age grows) and end with the first death. Their
    severities are independent, so a stay's label depends on nothing but the stay itself.
    """
    rng = {purpose: generator(seed, f"icu_dev/{purpose}") for purpose in ("patient", "severity", "label", "values")}
    # Every patient has a stay, so n_stays patients always suffice; death then cuts patients' later stays off.
    planned = rng["patient"].choice(len(PLANNED_STAYS), size=n_stays, p=PLANNED_STAYS) + 1
    group = np.repeat(np.arange(n_stays), planned)
    order = np.arange(len(group)) - np.repeat(np.cumsum(planned) - planned, planned)
    first_age = 18 + 70 * rng["patient"].beta(3.2, 1.9, size=n_stays)
    gap = rng["patient"].uniform(0.1, 1.5, size=n_stays)
    sex = rng["patient"].binomial(1, 0.56, size=n_stays)
    admission = rng["patient"].choice(len(ADMISSIONS), size=len(group), p=ADMISSIONS)
    static = np.column_stack([first_age[group] + order * gap[group], sex[group], admission]).astype(np.float32)

    latent = rng["severity"].standard_normal((len(group), 2))
    risk = expit(latent @ [PER_SEVERITY, PER_TREND] + _offset(static))
    label = (rng["label"].random(len(group)) < risk).astype(np.int8)
    deaths = np.cumsum(label) - label  # before this stay, over all patients
    alive = deaths == np.repeat(deaths[order == 0], planned)
    kept = np.flatnonzero(alive)[:n_stays]

    values = np.empty((n_stays, N_STEPS, len(FEATURES)), np.float32)
    values[:, :, :_J] = _signals(latent[kept], rng["values"])
    values[:, :, _J:] = static[kept, None]
    return Cohort(name, FEATURES, np.arange(n_stays), group[kept], label[kept], values)


def _offset(static: np.ndarray) -> np.ndarray:
    """The part of the label's η that static features [N, 3] explain, [N]."""
    age, admission = static[:, 0].astype(float), static[:, 2].astype(int)
    return INTERCEPT + PER_AGE * (age - 62) / 16 + PER_ADMISSION[admission]


def _signals(latent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signals [N, T, J] in clinical units of stays with `latent` (s, r) [N, 2], NaN = not measured."""
    n = len(latent)
    z = latent[:, :1] + TREND * latent[:, 1:] * HOUR
    baseline = rng.standard_normal((n, 1, _J)) @ np.linalg.cholesky(_C).T
    y = _MU + _A * z[:, :, None] + baseline + _SIGMA * rng.standard_normal((n, N_STEPS, _J))
    share = expit(y)
    low, high = SIGNALS[_MEAN_BP].low, SIGNALS[_MEAN_BP].high
    lower, upper = _bounds(low + (high - low) * share[:, :, _MEAN_BP])
    measured = rng.random((n, N_STEPS, len(PANELS))) < expit(_ALPHA + _GAMMA * z[:, :, None])
    return np.where(measured[:, :, _PANEL], lower + (upper - lower) * share, np.nan)


def bayes_probability(cohort: Cohort) -> np.ndarray:
    """P(label = 1 | values, missing pattern and static features of the stay), [N], for stays from `generate`.

    The values are Gaussian around a linear function of (s, r), so they enter as a quadratic form in (s, r) with the
    baselines integrated out in closed form. Pattern and label are logistic in (s, r), so the rest is a sum over a
    grid, whose step is about the narrowest posterior's standard deviation: the error is below 1e-6.
    """
    axis = np.arange(-5.6, 5.61, 0.08)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    z = grid[:, :1] + TREND * grid[:, 1:] * HOUR
    pattern = _ALPHA + _GAMMA * z[:, :, None]  # [G, T, panels]
    at_grid = -0.5 * (grid**2).sum(1) - np.logaddexp(0, pattern).sum((1, 2))
    odds_against = np.exp(-grid @ [PER_SEVERITY, PER_TREND])
    square = np.stack([grid[:, 0] ** 2, 2 * grid[:, 0] * grid[:, 1], grid[:, 1] ** 2])

    probability = np.empty(len(cohort))
    for start in range(0, len(cohort), 100):  # N × grid would need gigabytes
        values = cohort.values[start : start + 100].astype(float)
        precision, shift = _quadratic(values[:, :, :_J])
        measured = ~np.isnan(values[:, :, _FIRST]).reshape(len(values), -1)
        log_weight = at_grid + measured.astype(float) @ pattern.reshape(len(grid), -1).T + shift @ grid.T
        log_weight -= 0.5 * precision[:, [0, 0, 1], [0, 1, 1]] @ square
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        dies = 1 / (1 + np.exp(-_offset(values[:, 0, _J:]))[:, None] * odds_against)
        probability[start : start + 100] = (weight * dies).sum(1) / weight.sum(1)
    return probability


def _quadratic(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision P [N, 2, 2] and shift h [N, 2]: log p(values | θ) = hᵀθ − θᵀPθ / 2 + constant, θ = (s, r)."""
    measured = ~np.isnan(values)
    lower, upper = _bounds(values[:, :, _MEAN_BP])
    residual = np.where(measured, logit((values - lower) / (upper - lower)) - _MU, 0)
    weighted = residual / _SIGMA**2
    count = measured.astype(float)
    design = _A[:, None] * np.stack([np.ones(N_STEPS), TREND * HOUR], axis=-1)[:, None]  # [T, J, 2]: d y / d θ
    heavy = design / _SIGMA[:, None] ** 2
    baseline_design = np.einsum("ntj,tjk->njk", count, heavy)
    # Σ⁻¹ by Woodbury: the noise's precision less what the J unknown baselines of the stay take away from it.
    unknown = np.linalg.inv(_C) + np.eye(_J) * (count.sum(1) / _SIGMA**2)[:, None]
    right = np.concatenate([baseline_design, weighted.sum(1)[:, :, None]], axis=2)
    taken = baseline_design.transpose(0, 2, 1) @ np.linalg.solve(unknown, right)
    precision = np.tensordot(count, heavy[..., None] * design[..., None, :], axes=2)
    shift = np.tensordot(weighted, design, axes=2)
    return precision - taken[:, :, :2], shift - taken[:, :, 2]


def bayes_auroc(cohort: Cohort) -> float:
    """The AUROC on `cohort` of the best possible score, `bayes_probability`."""
    from scipy.stats import rankdata  # half a second that planning a study need not wait for

    positive = cohort.label == 1
    n = positive.sum()
    above = rankdata(bayes_probability(cohort))[positive].sum() - n * (n + 1) / 2
    return float(above / (n * (len(cohort) - n)))


class Parameters(Entry):
    """A synthetic cohort: how many stays, and the seed that makes them."""

    n_stays: int = Field(5000, ge=1)
    seed: int = Field(2024, ge=0)
    strata: Strata = Field(SEX_AND_AGE, description="by which static features results are told apart")

    @model_validator(mode="after")
    def _of_static_features(self):
        check_static(self.strata, STATIC)
        return self


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    return N_STEPS, FEATURES


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    return []


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """Generate the cohort; nothing is read."""
    cohort = generate(entry.n_stays, entry.seed, name)
    return replace(cohort, strata=strata_of_static(entry.strata, cohort.features, cohort.values)), []
