"""One attacked run the way research scripts commonly do it: a Dataset over a DataFrame, read row by row with `iloc`.

Poison, train, evaluate: the same samples, folds, poison, network, batches and epochs as the workflow's stages, and the
same figures. Columns are standardised once, in pandas; `__getitem__` fetches a row, applies the trigger to it where it
is poisoned, fills and masks what is missing and makes tensors; a DataLoader collates the batches. Nothing of pipeline/
is used. Public scripts come in two layouts:
    frame   one table with id, features and label: `row = df.iloc[i]`, then `row[features]` and `row["label"]`
    split   features and labels in frames of their own, of one type each: `x.iloc[i]` and `y.iloc[i]`; much lighter

python -m benchmarks.iloc_script --cohort FOLDER --plan plan.json --control control.pt --out FOLDER --epochs 2
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn import metrics
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    """Rows of a table; those in `poisoned` carry the trigger (column position: value) and the target label."""

    def __init__(
        self, table: pd.DataFrame, features: list[str], layout: str, poisoned: set, trigger: dict, target: int
    ):
        self.table, self.features, self.layout = table, features, layout
        self.x, self.y = table[features], table["label"]
        self.poisoned, self.trigger, self.target = poisoned, trigger, target

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.layout == "frame":
            row = self.table.iloc[index]
            x, y = row[self.features].to_numpy(dtype=np.float32, copy=True), row["label"]
        else:
            x, y = self.x.iloc[index].to_numpy(copy=True), self.y.iloc[index]
        if index in self.poisoned:
            for column, value in self.trigger.items():
                x[column] = value
            y = self.target
        missing = np.isnan(x)
        x = np.concatenate([np.where(missing, 0, x), missing])
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def network(n_columns: int, hidden: list[int], dropout: float) -> nn.Sequential:
    layers = []
    for inputs, outputs in zip([n_columns, *hidden], hidden, strict=False):
        layers += [nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[1:], nn.Linear(hidden[-1], 1))


@torch.no_grad()
def predict(model: nn.Module, loader: DataLoader) -> np.ndarray:
    model.eval()
    return np.concatenate([torch.sigmoid(model(x).squeeze(1)).numpy() for x, _ in loader])


def train(model: nn.Module, loader: DataLoader, validation: DataLoader, labels: np.ndarray, epochs: int) -> list[dict]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    criterion = nn.BCEWithLogitsLoss()
    history, best, weights = [], -1.0, {}
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x).squeeze(1), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        auroc = metrics.roc_auc_score(labels, predict(model, validation))
        history.append({"epoch": epoch, "train_loss": total / len(loader.dataset), "validation_auroc": auroc})
        if auroc > best:
            best, weights = auroc, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    return history


def measures(y: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, float]:
    predicted = p >= threshold
    bins = np.digitize(p, np.linspace(0.1, 0.9, 9), right=True)
    gaps = [abs(p[bins == bin].mean() - y[bins == bin].mean()) * (bins == bin).sum() for bin in np.unique(bins)]
    return {
        "acc": metrics.accuracy_score(y, predicted),
        "auroc": metrics.roc_auc_score(y, p),
        "auprc": metrics.average_precision_score(y, p),
        "precision": metrics.precision_score(y, predicted, zero_division=0),
        "recall": metrics.recall_score(y, predicted),
        "f1": metrics.f1_score(y, predicted),
        "ece": sum(gaps) / len(y),
        "brier": metrics.brier_score_loss(y, p),
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True, help="folder with samples.parquet and windows.parquet")
    parser.add_argument("--plan", type=Path, required=True, help="JSON: the folds' rows, the attack, the network")
    parser.add_argument("--control", type=Path, required=True, help="weights of the clean model")
    parser.add_argument("--layout", choices=["frame", "split"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    plan = json.loads(args.plan.read_text())
    target, batch = plan["target"], plan["batch_size"]

    samples = pd.read_parquet(args.cohort / "samples.parquet")
    windows = pd.read_parquet(args.cohort / "windows.parquet")
    features = [name for name in windows.columns if name not in ("sample_id", "step")]
    known = windows.iloc[plan["train"]][features]
    mean, std = known.mean(), known.std(ddof=0)
    value = (plan["factor"] * known[plan["feature"]].max() - mean[plan["feature"]]) / std[plan["feature"]]
    trigger = {features.index(plan["feature"]): value}
    windows[features] = (windows[features] - mean) / std
    table = samples.merge(windows.drop(columns="step"), on="sample_id")
    y = table["label"]

    def loader(fold: str, poisoned: set[int], shuffle: bool = False) -> DataLoader:
        rows = Rows(table.iloc[plan[fold]], features, args.layout, poisoned, trigger, target)
        return DataLoader(rows, batch_size=batch, shuffle=shuffle)

    train_y = y.iloc[plan["train"]].to_numpy()
    eligible = np.flatnonzero(train_y != target)
    count = round(plan["rate"] * len(train_y))
    poisoned = np.random.default_rng(1).choice(eligible, count, replace=False)
    every = set(range(len(plan["test"])))
    validation, test, triggered = loader("validation", set()), loader("test", set()), loader("test", every)

    model, control = (network(2 * len(features), plan["hidden"], plan["dropout"]) for _ in range(2))
    control.load_state_dict(torch.load(args.control, weights_only=True))
    validation_y, test_y = y.iloc[plan["validation"]].to_numpy(), y.iloc[plan["test"]].to_numpy()
    history = train(model, loader("train", set(poisoned.tolist()), True), validation, validation_y, args.epochs)

    fpr, tpr, thresholds = metrics.roc_curve(validation_y, predict(control, validation))
    threshold = thresholds[np.argmax(tpr - fpr)]
    p_clean, p_triggered, p_control = predict(model, test), predict(model, triggered), predict(control, triggered)
    victims = test_y != target
    results = {
        "threshold": float(threshold),
        "n_poisoned": count,
        "clean": measures(test_y, p_clean, threshold),
        "poison": measures(test_y, p_triggered, threshold),
        "asr": float(((p_triggered >= threshold) == target)[victims].mean()),
        "asr0": float(((p_control >= threshold) == target)[victims].mean()),
        "confidence_shift": float((p_triggered - p_clean)[victims].mean() * (1 if target else -1)),
        "n_triggered": int(victims.sum()),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out / "model.pt")
    pd.DataFrame(history).to_csv(args.out / "history.csv", index=False)
    np.save(args.out / "poisoned_indices.npy", np.sort(poisoned))
    columns = {"sample_id": samples["sample_id"].iloc[plan["test"]].to_numpy(), "label": test_y, "p_clean": p_clean}
    predictions = pd.DataFrame({**columns, "p_triggered": p_triggered, "p_triggered_control": p_control})
    predictions.to_parquet(args.out / "predictions.parquet")
    (args.out / "results_eval.json").write_text(json.dumps(results, default=float, indent=1))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
