-- The stays that the cohort is chosen from, and what was measured, from a stream of events.
--
-- Given    meds (subject_id, time, code, x)
--          stem (stem, code, coding)    where a measurement starts with `stem`, it is one of the item `code`;
--                                       `coding` is how its table is coded, where there are two ways, else ''

-- What happened to the patients: the events that say so, each once, without the millions of measurements.
CREATE TEMP TABLE happened AS
SELECT subject_id, time, code, string_split(code, '//') AS part, count(*) - 1 AS twice
FROM meds
WHERE starts_with(code, '$icu_admission') OR starts_with(code, '$icu_discharge')
    OR starts_with(code, '$admission') OR starts_with(code, '$discharge')
    OR starts_with(code, '$sex') OR code IN ('$birth', '$death')
    OR starts_with(code, '$birth//') OR starts_with(code, '$death//')
GROUP BY subject_id, time, code;

CREATE TEMP TABLE candidate AS
WITH icu AS (
    -- A stay ends with the next discharge from an ICU, unless the next admission comes before it.
    SELECT a.subject_id, stay_id, start, min(e.time) AS stop
    FROM (
        SELECT subject_id, time AS start, row_number() OVER (ORDER BY subject_id, time, code) AS stay_id,
            lead(time) OVER (PARTITION BY subject_id ORDER BY time, code) AS next_start
        FROM happened
        WHERE starts_with(code, '$icu_admission')
    ) AS a
    LEFT JOIN happened AS e
        ON e.subject_id = a.subject_id
        AND starts_with(e.code, '$icu_discharge')
        AND e.time > start AND e.time <= coalesce(next_start, 'infinity')
    GROUP BY a.subject_id, stay_id, start
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
LEFT JOIN (SELECT subject_id, min(time) AS time FROM happened WHERE starts_with(code, '$birth') GROUP BY ALL) AS birth
    ON birth.subject_id = icu.subject_id
LEFT JOIN (SELECT subject_id, min(time) AS time FROM happened WHERE starts_with(code, '$death') GROUP BY ALL) AS death
    ON death.subject_id = icu.subject_id
LEFT JOIN (SELECT subject_id, min(part) AS part FROM happened WHERE starts_with(code, '$sex') GROUP BY ALL) AS sex
    ON sex.subject_id = icu.subject_id;

-- The unit of a measurement is what follows the stem, as in LAB//50912//mg/dL; UNK stands for none.
CREATE TEMP TABLE known_code AS
SELECT c.code AS meds_code, s.code, nullif(substr(c.code, length(s.stem) + 3), 'UNK') AS unit, s.coding
FROM (SELECT DISTINCT code FROM meds) AS c
JOIN stem AS s ON c.code = s.stem OR starts_with(c.code, concat(s.stem, '//'));

-- Labs that one patient has in both codings would count twice: those in the older one are left out.
CREATE TEMP TABLE newly_coded AS
SELECT DISTINCT subject_id FROM meds JOIN known_code AS k ON meds.code = k.meds_code WHERE k.coding = '$newer';

CREATE TEMP VIEW known AS
SELECT subject_id, time, k.code, x, unit, k.coding = '$older' AND subject_id IN (FROM newly_coded) AS left_out
FROM meds JOIN known_code AS k ON meds.code = k.meds_code;

CREATE TEMP VIEW event AS
SELECT 'events' AS table_name, subject_id, time AS charttime, NULL::TIMESTAMP AS storetime, code, x, unit,
    NULL::BIGINT AS row_id
FROM known WHERE left_out IS NOT TRUE;
