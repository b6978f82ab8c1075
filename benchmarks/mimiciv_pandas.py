"""The MIMIC-IV cohort as research scripts make it: pandas, whole tables by `read_csv`, `groupby` over the hours.

What the cohort source `mimiciv` is measured against, and a second opinion on its values: the same definition, written
without its code. Static features are left out.
"""

from pathlib import Path

import numpy as np
import pandas as pd

HOUR = pd.Timedelta(hours=1)


def build(
    folder: Path, items_csv: Path, hours: int = 24, gap_hours: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hourly values float32 [N, hours, D] with NaN = not measured, stay ids [N], labels int8 [N], by subject_id.

    `folder` holds hosp/ and icu/ as .csv.gz, `items_csv` one row per item and range of its raw values; the D variables
    come in its order. A stay is kept if it is the patient's first in an ICU as an adult, neither it nor the patient's
    life ended before `hours` + `gap_hours`, and anything was measured; the label is death in hospital. A value counts
    if it was measured in the first `hours` and stored by their end, in one of the item's units or none, and within a
    range; the sum of an hour, if it too is within the range.
    """
    items = pd.read_csv(items_csv, keep_default_na=False)
    stays = _first_stays(folder, hours, gap_hours)
    measured = pd.concat(
        [
            _measurements(folder / "icu" / "chartevents.csv.gz", "stay_id", "valuenum", stays, items),
            _measurements(folder / "hosp" / "labevents.csv.gz", "subject_id", "valuenum", stays, items),
            _measurements(folder / "icu" / "outputevents.csv.gz", "stay_id", "value", stays, items),
        ]
    )
    variables = items.drop_duplicates("variable")
    values = np.full((len(stays), hours, len(variables)), np.nan, np.float32)
    position = pd.Index(stays["stay_id"])
    for column, variable in enumerate(variables.itertuples()):
        rows = measured[measured["variable"] == variable.variable]
        if variable.hourly == "total":
            rows = _totals(rows, items.loc[items["variable"] == variable.variable, "itemid"])
        hourly = rows.groupby(["stay_id", "hour"])["x"]
        cells = hourly.mean()
        if variable.hourly == "sum":
            cells = hourly.sum()
            cells = cells[cells <= items.loc[items["variable"] == variable.variable, "high"].max()]
        stay_id, hour = cells.index.get_level_values("stay_id"), cells.index.get_level_values("hour")
        values[position.get_indexer(stay_id), hour, column] = cells
    measured_at_all = ~np.isnan(values).all(axis=(1, 2))
    stays, values = stays[measured_at_all], values[measured_at_all]
    return values, stays["stay_id"].to_numpy(), stays["hospital_expire_flag"].to_numpy(np.int8)


def _first_stays(folder: Path, hours: int, gap_hours: int) -> pd.DataFrame:
    """The cohort's stays by subject_id, with the end of the observation as `end`."""
    stays = pd.read_csv(
        folder / "icu" / "icustays.csv.gz",
        usecols=["subject_id", "hadm_id", "stay_id", "intime", "outtime"],
        parse_dates=["intime", "outtime"],
    )
    admissions = pd.read_csv(
        folder / "hosp" / "admissions.csv.gz",
        usecols=["hadm_id", "deathtime", "hospital_expire_flag"],
        parse_dates=["deathtime"],
    )
    patients = pd.read_csv(folder / "hosp" / "patients.csv.gz", usecols=["subject_id", "anchor_age", "anchor_year"])
    stays = stays.merge(admissions, on="hadm_id").merge(patients, on="subject_id")
    age = stays["anchor_age"] + stays["intime"].dt.year - stays["anchor_year"]
    stays = stays[age >= 18].sort_values(["intime", "stay_id"]).drop_duplicates("subject_id")
    stays["end"] = stays["intime"] + hours * HOUR
    until = stays["end"] + gap_hours * HOUR
    return stays[(stays["outtime"] >= until) & ~(stays["deathtime"] < until)].sort_values("subject_id")


def _measurements(path: Path, key: str, value: str, stays: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The values of one event table that count, as x: stay_id, charttime, hour, itemid, variable, x."""
    items = items[items["table"] == path.name.split(".")[0]]
    events = pd.read_csv(
        path,
        usecols=[key, "itemid", "charttime", "storetime", value, "valueuom"],
        dtype={key: "int32", "itemid": "int32", value: "float64", "valueuom": "category"},
        parse_dates=["charttime", "storetime"],
    )
    events = events[events["itemid"].isin(items["itemid"]) & events[value].notna()]
    events = events.merge(stays[list({key, "stay_id", "intime", "end"})], on=key)
    in_time = (events["charttime"] >= events["intime"]) & (events["charttime"] < events["end"])
    events = events[in_time & ~(events["storetime"] > events["end"])]
    events["hour"] = (events["charttime"] - events["intime"]) // HOUR
    events["unit"] = events["valueuom"].astype("str").fillna("").str.strip().str.lower()

    measured = []
    for item in items.itertuples():
        rows = events[(events["itemid"] == item.itemid) & events[value].between(item.low, item.high)]
        if item.item_unit:
            rows = rows[rows["unit"].isin(["", *item.item_unit.lower().split("|")])]
        x = pd.eval(item.conversion, local_dict={"x": rows[value]}) if item.conversion else rows[value]
        measured.append(rows[["stay_id", "charttime", "hour", "itemid"]].assign(variable=item.variable, x=x))
    return pd.concat(measured)


def _totals(rows: pd.DataFrame, parts: pd.Series) -> pd.DataFrame:
    """Scores charted in parts: their sums, at the times at which all of the parts are there."""
    table = rows.pivot_table(index=["stay_id", "hour", "charttime"], columns="itemid", values="x", aggfunc="mean")
    return table.reindex(columns=parts.unique()).dropna().sum(axis=1).rename("x").reset_index()
