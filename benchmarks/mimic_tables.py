"""Synthetic patients in MIMIC-IV's tables: what reading a database of full size is measured on.

`python -m benchmarks.mimic_tables --out DIR --stays N --rows N` writes those that the cohort source `mimiciv` reads.
Names and order of columns, quoting, times, numbers and the order of rows are those of MIMIC-IV 2.2 and 3.1 (Johnson et
al., Sci Data 2023); the patients are made up and share nothing with real ones.

Every draw is a hash of the seed, what it is for and the row's number, so it does not depend on threads or on pieces.
"""

import argparse
import csv
import math
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.errors import UserError
from pipeline.files import whole

VARIABLES = Path(__file__).parent.parent / "pipeline" / "cohorts" / "variables" / "mimiciv.csv"

ROWS_SHARE = {"labevents": 1 / 3.5, "chartevents": 2.5 / 3.5, "outputevents": 0.0125 * 2.5 / 3.5}
OUTPATIENT_SHARE = 0.22  # of labevents; with those that lack it in hospital, 26 % are without hadm_id
PERSONS_PER_ICU_PATIENT = 4  # the others have labs but never were in an ICU
SLOT_SHARE = {"chartevents": 0.8, "labevents": 0.5, "outputevents": 1.0}  # a variable is in so many of the events
PART_SHARE = 0.3  # the same for scores that are charted in parts
KEPT = 0.98  # of what an event shows; the rest is left out, so that scores lack parts
USED_SHARE = {"chartevents": 0.25, "labevents": 0.45, "outputevents": 0.85}  # of the rows are the variables' items
OTHER_SHARE = 0.75  # any other slot is in so many of the events, at most
OTHER_ITEMS = {"chartevents": 400, "labevents": 300, "outputevents": 5}
OTHER_NUMBERS = {"chartevents": 2, "labevents": 8, "outputevents": 10}  # of ten other items; the rest have texts
OTHER_FROM = {"chartevents": 224001, "labevents": 51480, "outputevents": 226571}  # first itemid to try
EVENTS_PER_PIECE = 25_000  # events are made, sorted and stored in pieces, which bounds the memory

CARE_UNITS = [
    "Medical Intensive Care Unit (MICU)",
    "Surgical Intensive Care Unit (SICU)",
    "Cardiac Vascular Intensive Care Unit (CVICU)",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)",
    "Trauma SICU (TSICU)",
    "Coronary Care Unit (CCU)",
]
ADMISSION_TYPES = [
    "EW EMER.",
    "OBSERVATION ADMIT",
    "URGENT",
    "EU OBSERVATION",
    "SURGICAL SAME DAY ADMISSION",
    "DIRECT EMER.",
    "ELECTIVE",
    "DIRECT OBSERVATION",
    "AMBULATORY OBSERVATION",
]
ADMISSION_LOCATIONS = ["EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "WALK-IN/SELF REFERRAL"]
DISCHARGE_LOCATIONS = ["HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB"]
RACES = ["WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN", "OTHER", "ASIAN - CHINESE", "HISPANIC/LATINO - CUBAN"]
CHART_TEXTS = ["Normal", "Clear", "Alert", "Intact", "Yes", "No", "1 - Mild", "Soft, non-tender", 'Uses 2 "pillows"']
LAB_TEXTS = ["NEG", "NONE", "ART.", "VEN.", "HOLD.", "<5", ">100", "___"]
LAB_COMMENTS = [
    "___",
    "SPECIMEN SLIGHTLY CLOUDED.",
    "RECEIVED LATE, RESULT MAY BE LOW.",
    'MARKED "SECOND TUBE", REPEAT IF NEEDED.',
    "MADE UP FOR A BENCHMARK, NOT A RESULT.",
]

# hash() joins its arguments so simply that rows which differ in one of them are dependent; hashed again they are not.
# Of its 64 bits, 53 are a double's mantissa: uniform() is in [0, 1).
MACROS = """
CREATE MACRO bits(purpose, a, b) AS hash(hash(getvariable('seed'), purpose, a, b));
CREATE MACRO uniform(purpose, a, b := 0) AS (bits(purpose, a, b) >> 11)::DOUBLE / 9007199254740992;
CREATE MACRO pick(purpose, n, a, b := 0) AS (bits(purpose, a, b) % n::UBIGINT)::BIGINT;
CREATE MACRO one_of(list, purpose, a, b := 0) AS list[1 + pick(purpose, len(list), a, b)];
CREATE MACRO normal(purpose, a) AS sqrt(-2 * ln(1 - uniform(purpose, a, 1))) * cos(2 * pi() * uniform(purpose, a, 2));
CREATE MACRO minute(time) AS date_trunc('minute', time);
CREATE MACRO after(time, seconds) AS time + to_microseconds((1e6 * seconds)::BIGINT);
CREATE MACRO provider(a, b := 0) AS 'P' || lpad(to_hex(pick('provider', 1048576, a, b)), 5, '0');
CREATE MACRO bare(x) AS CASE WHEN x = trunc(x) THEN x::BIGINT::VARCHAR ELSE x::VARCHAR END;
"""

# Numbers become ids that are unique without being in order: 9999991 is prime.
MADE_UP = """
CREATE TABLE stay AS
WITH drawn AS (
    SELECT i AS number, i = 0 OR uniform('new patient', i) < 0.7 AS new_patient,
        new_patient OR uniform('new admission', i) < 0.85 AS new_admission,
        (86400 * least(60, exp(0.7 + 0.95 * normal('length of stay', i))))::BIGINT AS seconds,
        normal('severity', i) AS severity
    FROM range({stays}) AS t(i)
), placed AS (
    SELECT *, ({persons} * (sum(new_patient::INT) OVER (ORDER BY number) - 1))::BIGINT AS person,
        (sum(new_admission::INT) OVER (ORDER BY number) - 1)::BIGINT AS admission
    FROM drawn
), counted AS (
    SELECT *, dense_rank() OVER (PARTITION BY person ORDER BY admission) - 1 AS nth_admission,
        number = max(number) OVER (PARTITION BY person) AS last_of_patient,
        sum(seconds + 43200) OVER (PARTITION BY admission ORDER BY number) - (seconds + 43200) AS seconds_before
    FROM placed
), timed AS (
    SELECT *, after(TIMESTAMP '2110-01-01', 86400 * (pick('date', 30000, person) + 500 * nth_admission)
            + 60 * pick('minute of admission', 1440, admission)) AS admittime,
        after(admittime, 600 + seconds_before + floor(300000 * pow(uniform('wait', admission), 4))) AS intime
    FROM counted
)
SELECT number, person, admission, admittime, intime, after(intime, seconds) AS outtime, seconds, severity,
    30000000 + (number * 7368787 + 11) % 9999991 AS stay_id,
    last_of_patient AND uniform('death', number) < 1 / (1 + exp(2.4 - severity)) AS died
FROM timed;

CREATE TABLE admission AS
WITH icu AS (
    SELECT person, admission, any_value(admittime) AS admittime, max(outtime) AS outtime, bool_or(died) AS died,
        arg_max(severity, number) AS severity
    FROM stay GROUP BY person, admission
), elsewhere AS (
    SELECT i AS person, (SELECT count(*) FROM icu) + i AS admission,
        after(TIMESTAMP '2110-01-01', 86400 * pick('date', 30000, i) + 60 * pick('minute of admission', 1440, i, 1))
            AS admittime,
        after(admittime, 21600) AS outtime, uniform('death', i, 1) < 0.01 AS died, 0.0 AS severity
    FROM range((SELECT max(person) FROM stay) + {persons}) AS t(i) WHERE i % {persons} > 0
), ended AS (
    SELECT *, CASE WHEN died AND uniform('dies in the ICU', admission) < 0.8 THEN minute(outtime)
        ELSE minute(after(outtime, 600000 * uniform('ward', admission))) END AS dischtime
    FROM (FROM icu UNION ALL FROM elsewhere)
)
SELECT *, 10000000 + 3 * person + pick('subject', 3, person) AS subject_id,
    20000000 + (admission * 7368787 + 7) % 9999991 AS hadm_id, CASE WHEN died THEN dischtime END AS deathtime
FROM ended;

CREATE TABLE patient AS
SELECT person, subject_id, min(admittime) AS first_seen, any_value(deathtime) AS deathtime,
    year(min(admittime)) - pick('anchor', 3, person) AS anchor_year,
    CASE WHEN uniform('child', person) < 0.01 THEN 5 + pick('age', 13, person)
        ELSE least(91, 18 + floor(80 * sqrt(uniform('age', person))))::BIGINT END AS anchor_age
FROM admission GROUP BY person, subject_id;

-- Where events can lie: charting begins a little before the stay; labs are drawn in hospital and as an outpatient.
CREATE VIEW icu_time AS
SELECT stay.*, subject_id, hadm_id, intime - INTERVAL 1 HOUR AS begin, seconds + 3600 AS span, span AS weight
FROM stay JOIN admission USING (person, admission);

CREATE VIEW lab_time AS
SELECT person, admission AS number, subject_id, hadm_id, severity, admittime AS begin,
    epoch(dischtime - admittime)::BIGINT AS span, span AS weight
FROM admission
UNION ALL
SELECT person, -1, subject_id, NULL, 0.0, first_seen - INTERVAL 1100 DAY, 1000 * 86400,
    ((SELECT sum(epoch(dischtime - admittime)) FROM admission) / (SELECT count(*) FROM patient) * {outpatient})::BIGINT
FROM patient;
"""

# So many events per row of `{time}`, by its weight; the pieces hold whole persons, so sorted pieces are a sorted table.
PLAN = """
CREATE TABLE {table}_plan AS
SELECT *, (before * {events} // whole)::BIGINT AS first,
    ((before + weight) * {events} // whole)::BIGINT - first AS events,
    min(first) OVER (PARTITION BY person) // {per_piece} AS piece
FROM (
    SELECT *, sum(weight) OVER (ORDER BY person, number) - weight AS before, sum(weight) OVER () AS whole FROM {time}
);
"""

# One row per event and item: an event shows some of the slots, and of a slot one of its choices. In a score of parts
# the parts go together, but for a few. Values lie around the middle of the range, more so where severity counts.
DRAWN = """
WITH event AS (
    SELECT *, first + k AS event, minute(after(begin, span * (k + 0.9 * uniform('{table}', first + k)) / events))
        AS charttime
    FROM (SELECT *, unnest(range(events)) AS k FROM {table}_plan WHERE piece = {piece})
), shown AS (
    SELECT event.*, slot, pick('choice', choices, event, slot) AS choice
    FROM event CROSS JOIN (FROM slot WHERE source = '{table}')
    WHERE uniform('shown', event, together) < share AND uniform('left out', event, slot) < {kept}
), drawn AS (
    SELECT *, CASE WHEN uniform('out of range', event, slot) < 0.005 THEN round(high + (high - low), decimals)
        ELSE round(middle + spread * greatest(-1, least(1,
            (uniform('value', event, slot) + uniform('value too', event, slot) - 1) / 2 + 0.05 * effect * severity)),
            decimals) END AS number_drawn,
        uniform('unit', event, slot) AS which_unit, CASE WHEN which_unit < 0.02 THEN NULL WHEN which_unit < 0.025
            THEN ' ' WHEN which_unit < 0.03 THEN 'other' ELSE one_of(units, 'spelling', event, slot) END AS valueuom
    FROM shown JOIN choice USING (slot, choice)
)
"""

TABLES = {
    "hosp/patients": """
        SELECT subject_id, one_of(['F', 'M'], 'gender', person) AS gender, anchor_age, anchor_year,
            one_of(['2008 - 2010', '2011 - 2013', '2014 - 2016', '2017 - 2019'], 'period', person) AS anchor_year_group,
            coalesce(deathtime, CASE WHEN uniform('dies later', person) < 0.2
                THEN first_seen + to_days((3000 + pick('dod', 2000, person))::INTEGER) END)::DATE AS dod
        FROM patient ORDER BY subject_id""",
    "hosp/admissions": f"""
        SELECT subject_id, hadm_id, admittime, dischtime, deathtime,
            one_of({ADMISSION_TYPES}, 'type', admission) AS admission_type,
            provider(admission) AS admit_provider_id,
            one_of({ADMISSION_LOCATIONS}, 'from', admission) AS admission_location,
            CASE WHEN died THEN 'DIED' ELSE one_of({DISCHARGE_LOCATIONS}, 'to', admission) END AS discharge_location,
            one_of(['Medicare', 'Medicaid', 'Other'], 'insurance', person) AS insurance,
            one_of(['ENGLISH', '?'], 'language', person) AS language,
            one_of(['SINGLE', 'MARRIED', 'WIDOWED', 'DIVORCED', NULL], 'marital', person) AS marital_status,
            one_of({RACES}, 'race', person) AS race,
            CASE WHEN uniform('ED', admission) < 0.6 THEN admittime - INTERVAL 5 HOUR END AS edregtime,
            edregtime + INTERVAL 330 MINUTE AS edouttime, died::INT AS hospital_expire_flag
        FROM admission ORDER BY subject_id, hadm_id""",
    "icu/icustays": f"""
        SELECT subject_id, hadm_id, stay_id, one_of({CARE_UNITS}, 'unit', number) AS first_careunit,
            first_careunit AS last_careunit, intime, outtime, seconds / 86400 AS los
        FROM icu_time ORDER BY subject_id, hadm_id, stay_id""",
    "hosp/d_labitems": """
        SELECT DISTINCT ON (itemid) itemid, label, 'Blood' AS fluid, 'Chemistry' AS category
        FROM choice JOIN slot USING (slot) WHERE source = 'labevents' ORDER BY itemid""",
    "icu/d_items": """
        SELECT DISTINCT ON (itemid) itemid, label, label AS abbreviation, source AS linksto,
            'Routine Vital Signs' AS category, units[1] AS unitname, if(high IS NULL, 'Text', 'Numeric') AS param_type,
            NULL::DOUBLE AS lownormalvalue, NULL::DOUBLE AS highnormalvalue
        FROM choice JOIN slot USING (slot) WHERE source <> 'labevents' ORDER BY itemid""",
}
EVENTS = {
    "hosp/labevents": f"""
        SELECT {{done}} + row_number() OVER (ORDER BY subject_id, charttime, event, itemid) AS labevent_id, subject_id,
            CASE WHEN uniform('hadm_id', event) >= 0.05 THEN hadm_id END AS hadm_id,
            1 + (event * 7368787) % 99999989 AS specimen_id, itemid,
            CASE WHEN uniform('ordered', event) < 0.16 THEN provider(event, 1) END AS order_provider_id,
            charttime, CASE WHEN uniform('stored', event) < 0.99
                THEN minute(after(charttime, 1800 + 5400 * uniform('stored after', event))) END AS storetime,
            CASE WHEN high IS NULL THEN one_of({LAB_TEXTS}, 'text', event, slot)
                WHEN uniform('blank', event, slot) < 0.06 THEN '___' ELSE bare(number_drawn) END AS value,
            number_drawn AS valuenum, valueuom, round(middle - 0.3 * spread, decimals) AS ref_range_lower,
            round(middle + 0.3 * spread, decimals) AS ref_range_upper,
            if(number_drawn NOT BETWEEN ref_range_lower AND ref_range_upper, 'abnormal', NULL) AS flag,
            one_of(['ROUTINE', 'STAT', NULL], 'priority', event) AS priority,
            CASE WHEN uniform('comment', event, slot) < 0.17
                THEN one_of({LAB_COMMENTS}, 'comments', event, slot) END AS comments
        FROM drawn ORDER BY labevent_id""",
    "icu/chartevents": f"""
        SELECT subject_id, hadm_id, stay_id, 1000 + pick('caregiver', 99000, number, event // 12) AS caregiver_id,
            charttime, minute(after(charttime, 3600 * uniform('stored', number, event)
                + if(uniform('late', number, event) < 0.02, 14400, 0))) AS storetime, itemid,
            if(high IS NULL, one_of({CHART_TEXTS}, 'text', event, slot), bare(number_drawn)) AS value,
            number_drawn AS valuenum, valueuom, (uniform('warning', event, slot) < 0.01)::INT AS warning
        FROM drawn ORDER BY subject_id, hadm_id, stay_id, charttime, itemid, event""",
    "icu/outputevents": """
        SELECT subject_id, hadm_id, stay_id, 1000 + pick('caregiver', 99000, number, event // 12) AS caregiver_id,
            charttime, minute(after(charttime, 3600 * (uniform('put out', event) - 0.2))) AS storetime, itemid,
            number_drawn AS value, valueuom
        FROM drawn ORDER BY subject_id, hadm_id, stay_id, charttime, itemid, event""",
}


class Choice(NamedTuple):
    """An item and a range of it; without one it is a text."""

    itemid: int
    label: str
    units: list[str] | None = None
    low: float | None = None
    high: float | None = None
    middle: float | None = None
    spread: float | None = None  # values lie in middle ± spread, those out of range aside
    decimals: int = 0
    effect: float = 0  # of the severity on the value


class Slot(NamedTuple):
    """What an event can show once: one of the choices, in `share` of the events, the same for all slots `together`."""

    together: str
    share: float
    choices: list[Choice]


def write_tables(
    folder: Path, n_stays: int, rows: int, seed: int = 0, kind: Literal["csv.gz", "csv", "parquet"] = "csv.gz"
) -> None:
    """Write the hosp/ and icu/ tables of `n_stays` ICU stays below `folder`; the same for the same arguments.

    labevents and chartevents have `rows` rows together, within 1 % from 20,000 rows on. In Parquet, numbers and times
    have their types. Raises `UserError` when there would be less than one row per stay.
    """
    import duckdb

    if not 1 <= n_stays <= rows:
        raise UserError(f"{n_stays} stays with {rows} rows given, expected at least one stay and a row for each")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, duckdb.connect() as db:
        db.execute("SET memory_limit = '1GB'")
        db.execute(f"SET VARIABLE seed = {seed}")
        db.execute(MACROS)
        _add_items(db)
        outpatient = OUTPATIENT_SHARE / (1 - OUTPATIENT_SHARE)
        db.execute(MADE_UP.format(stays=n_stays, persons=PERSONS_PER_ICU_PATIENT, outpatient=outpatient))
        for name, query in TABLES.items():
            _write(db.sql(query), folder / f"{name}.{kind}")
        for name, query in EVENTS.items():
            table = Path(name).name
            pieces = _pieces(db, table, query, rows * ROWS_SHARE[table], Path(scratch))
            _write(db.read_parquet(pieces), folder / f"{name}.{kind}")


def _add_items(db) -> None:
    """Tables `slot`, what an event can show, and `choice`, the items and ranges that a slot can be shown by."""
    with VARIABLES.open(encoding="utf-8", newline="") as file:
        variables = list(csv.DictReader(file))
    used = {int(row["itemid"]) for row in variables}
    db.execute("CREATE TABLE slot (slot INT, source VARCHAR, together VARCHAR, share DOUBLE, choices INT)")
    db.execute(
        "CREATE TABLE choice (slot INT, choice INT, itemid INT, label VARCHAR, units VARCHAR[], "
        "low DOUBLE, high DOUBLE, middle DOUBLE, spread DOUBLE, decimals INT, effect DOUBLE)"
    )
    slot = 0
    for source in USED_SHARE:
        slots = _used_slots([row for row in variables if row["table"] == source], source)
        slots += _other_slots(source, sum(slot.share for slot in slots) * (1 / USED_SHARE[source] - 1), used)
        for together, share, choices in slots:
            db.execute("INSERT INTO slot VALUES (?, ?, ?, ?, ?)", [slot, source, together, share, len(choices)])
            rows = [[slot, position, *choice] for position, choice in enumerate(choices)]
            db.executemany("INSERT INTO choice VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            slot += 1


def _used_slots(rows: list[dict[str, str]], source: str) -> list[Slot]:
    """One slot per variable, or per part of a score."""
    slots: dict[str, Slot] = {}
    for row in rows:
        parts = row["hourly"] == "total"
        low, high = float(row["low"]), float(row["high"])
        half = (high - low) / 2
        # What is summed over an hour comes in portions: 0 to 4 % of the most that there can be.
        middle, spread = (low + 0.04 * half, 0.04 * half) if row["hourly"] == "sum" else (low + half, half)
        decimals = 0 if parts or high - low >= 100 else 1 if high - low >= 10 else 2
        effect = float(row["variable"] in ("heart_rate", "lactate"))
        units = row["item_unit"].split("|") if row["item_unit"] else None
        share = PART_SHARE if parts else SLOT_SHARE[source]
        slot = slots.setdefault(row["itemid"] if parts else row["variable"], Slot(row["variable"], share, []))
        choice = Choice(int(row["itemid"]), row["item"], units, low, high, middle, spread, decimals, effect)
        slot.choices.append(choice)
    return list(slots.values())


def _other_slots(source: str, rows: float, used: set[int]) -> list[Slot]:
    """Slots of items that no variable uses, `rows` of them per event."""
    ids = [itemid for itemid in range(OTHER_FROM[source], OTHER_FROM[source] + 2000) if itemid not in used]
    n_slots = math.ceil(rows / OTHER_SHARE)
    choices = []
    for position, itemid in enumerate(ids[: OTHER_ITEMS[source]]):
        choice = Choice(itemid, f"Other {itemid}")
        if position % 10 < OTHER_NUMBERS[source]:
            choice = choice._replace(units=["cm"], low=0, high=100, middle=50, spread=50)
        choices.append(choice)
    return [Slot(f"other {slot}", rows / n_slots, choices[slot::n_slots]) for slot in range(n_slots)]


def _pieces(db, name: str, query: str, rows: float, scratch: Path) -> list[str]:
    """Make an event table of about `rows` rows piece by piece; the files in order."""
    per_event = db.execute(f"SELECT {KEPT} * sum(share) FROM slot WHERE source = '{name}'").fetchone()[0]
    time = "lab_time" if name == "labevents" else "icu_time"
    db.execute(PLAN.format(table=name, time=time, events=max(1, round(rows / per_event)), per_piece=EVENTS_PER_PIECE))
    files, done = [], 0
    for (piece,) in db.execute(f"SELECT DISTINCT piece FROM {name}_plan WHERE events > 0 ORDER BY piece").fetchall():
        files.append(str(scratch / f"{name}-{piece}.parquet"))
        db.sql((DRAWN + query).format(table=name, kept=KEPT, piece=piece, done=done)).write_parquet(files[-1])
        done += len(db.read_parquet(files[-1]))
    return files


def _write(rows, path: Path) -> None:
    """Write a DuckDB relation to `path`, in text with whole numbers that have no decimal point."""
    with whole(path) as aside:
        if path.suffix == ".parquet":
            rows.write_parquet(str(aside))
            return
        columns = [
            f'bare("{name}") AS "{name}"' if kind == "DOUBLE" else f'"{name}"'
            for name, kind in zip(rows.columns, rows.types, strict=True)
        ]
        text = rows.project(", ".join(columns))
        text.write_csv(str(aside), header=True, compression="gzip" if path.suffix == ".gz" else "none")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mimic_tables", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where hosp/ and icu/ are written")
    parser.add_argument("--stays", type=int, required=True, metavar="N", help="ICU stays")
    parser.add_argument(
        "--rows", type=int, required=True, metavar="N", help="rows of labevents and chartevents together"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        write_tables(args.out, args.stays, args.rows, args.seed)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
