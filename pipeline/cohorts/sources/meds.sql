-- The stays that the cohort is chosen from, and what was measured, from a stream of events.
--
-- Given    meds (subject_id, time, code, x)
--          stem (stem, code)    where a measurement starts with `stem`, it is one of the item `code`

-- What happened to the patients: the events that say so, without the millions of measurements.
CREATE TEMP TABLE happened AS
SELECT subject_id, time, code, string_split(code, '//') AS part
FROM meds
WHERE starts_with(code, '$icu_admission') OR starts_with(code, '$icu_discharge')
    OR starts_with(code, '$admission') OR starts_with(code, '$discharge')
    OR starts_with(code, '$sex') OR code IN ('$birth', '$death');

CREATE TEMP TABLE candidate AS
WITH icu AS (
    -- A stay ends with the next discharge from an ICU.
    SELECT subject_id, row_number() OVER (ORDER BY subject_id, time) AS stay_id, time AS start,
        (
            SELECT min(e.time) FROM happened AS e
            WHERE e.subject_id = h.subject_id AND starts_with(e.code, '$icu_discharge') AND e.time >= h.time
        ) AS stop
    FROM happened AS h
    WHERE starts_with(code, '$icu_admission')
),
hospital AS (
    SELECT subject_id, time AS admitted, part[2] AS admission_type,
        lead(time) OVER (PARTITION BY subject_id ORDER BY time) AS next_admitted
    FROM happened
    WHERE starts_with(code, '$admission')
),
discharge AS (
    -- Of an admission: the first discharge after it; none where the data ends before it.
    SELECT h.subject_id, admitted, admission_type, arg_min(e.code, e.time) AS code
    FROM hospital AS h
    LEFT JOIN happened AS e
        ON e.subject_id = h.subject_id
        AND starts_with(e.code, '$discharge')
        AND e.time >= admitted AND e.time < coalesce(next_admitted, 'infinity')
    GROUP BY ALL
)
SELECT
    icu.subject_id,
    stay_id, start, stop,
    CASE WHEN d.code = '$died' THEN death.time END AS death,
    year(start) - year(birth.time) AS age,
    sex.part[2] AS sex,
    admission_type,
    CAST(d.code = '$died' AS TINYINT) AS label
FROM icu
-- The admission that a stay belongs to is the last one before its end: some stays start minutes before they are admitted.
ASOF LEFT JOIN discharge AS d ON icu.subject_id = d.subject_id AND icu.stop >= d.admitted
LEFT JOIN (SELECT subject_id, min(time) AS time FROM happened WHERE code = '$birth' GROUP BY ALL) AS birth
    ON birth.subject_id = icu.subject_id
LEFT JOIN (SELECT subject_id, min(time) AS time FROM happened WHERE code = '$death' GROUP BY ALL) AS death
    ON death.subject_id = icu.subject_id
LEFT JOIN (SELECT subject_id, min(part) AS part FROM happened WHERE starts_with(code, '$sex') GROUP BY ALL) AS sex
    ON sex.subject_id = icu.subject_id;

-- The unit of a measurement is what follows the stem, as in LAB//50912//mg/dL; UNK stands for none.
CREATE TEMP TABLE known_code AS
SELECT c.code AS meds_code, s.code, nullif(substr(c.code, length(s.stem) + 3), 'UNK') AS unit
FROM (SELECT DISTINCT code FROM meds) AS c
JOIN stem AS s ON c.code = s.stem OR starts_with(c.code, concat(s.stem, '//'));

CREATE TEMP VIEW event AS
SELECT 'events' AS table_name, subject_id, time AS charttime, NULL::TIMESTAMP AS storetime, k.code, x, unit
FROM meds JOIN known_code AS k ON meds.code = k.meds_code;
