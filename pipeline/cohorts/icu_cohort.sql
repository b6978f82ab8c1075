-- Which stays make up the cohort, and what was measured in their window.
--
-- Given    candidate (subject_id, stay_id, start, stop, death, age, sex, admission_type, label)
--              one row per ICU stay, or per hospital admission where there are no ICU tables
--          event (table_name, subject_id, charttime, storetime, code, x, unit, row_id)
--              one row per measurement; row_id is the data's own id of the row, or null
-- Makes    judged_stay    every candidate with the reason why it was dropped, if it was
--          stay           the others, numbered from 0 in the order of their patients
--          measurement    what was measured in the window of a stay
--
-- The window is the first $hours hours of the stay. For $gap hours after it the outcome must not have been decided:
-- the patient is alive and still there at start + $hours h + $gap h.

CREATE TEMP TABLE judged_stay AS
WITH known AS (
    SELECT *,
        CASE
            WHEN start IS NULL OR stop IS NULL OR stop <= start THEN 'with times missing or out of order'
            WHEN label IS NULL OR age IS NULL THEN 'without an outcome or an age'
            WHEN age < $min_age THEN 'under the lowest age'
        END AS unfit
    FROM candidate
),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY subject_id, unfit IS NULL ORDER BY start, stay_id) AS nth FROM known
)
SELECT *,
    CASE
        WHEN unfit IS NOT NULL THEN unfit
        WHEN '$stays' = 'first' AND nth > 1 THEN 'not the first of their patient'
        WHEN least(stop, coalesce(death, stop)) < start + to_hours($hours + $gap) THEN 'over before the end of window and gap'
    END AS reason
FROM numbered;

CREATE TEMP TABLE stay AS
SELECT row_number() OVER (ORDER BY subject_id, start, stay_id) - 1 AS position, * EXCLUDE (unfit, nth, reason)
FROM judged_stay
WHERE reason IS NULL;

-- Nothing from before the stay or after its window gets here. What was measured in the window but stored after it
-- (a lab result that was not back yet) is marked, and then dropped with that reason.
CREATE TEMP VIEW measurement AS
SELECT
    e.table_name,
    s.position AS stay,
    date_diff('second', s.start, e.charttime) // 3600 AS hour,
    e.charttime AS charted,
    e.code,
    e.x,
    e.unit,
    coalesce(e.storetime > s.start + to_hours($hours), false) AS late,
    e.storetime,
    e.row_id
FROM event AS e
JOIN stay AS s
    ON e.subject_id = s.subject_id
    AND e.charttime >= s.start
    AND e.charttime < s.start + to_hours($hours);
