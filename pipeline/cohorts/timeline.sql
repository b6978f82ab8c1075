-- From timed measurements to one value per stay, hour and variable.
--
-- Given    once (table_name, stay, hour, charted, code, x, unit, late, twice, …)
--              every measurement inside its window once, and how often the same row stands there beyond that
--          item (code, variable, row, units, low, high)    the table of variables, low and high as charted
--          variable (variable, hourly, items)              how an hour's values become one; how many items it has
-- Makes    judged    every measurement once, with its value, or the reason why it has none
--          hourly    stay, hour, variable, value
--
-- Values are decimals of four places, so sums are exact: the order of the rows and the number of threads do not matter.

CREATE OR REPLACE TEMP VIEW judged AS
SELECT
    m.*,
    i.variable,
    CASE
        WHEN m.x IS NULL OR isnan(m.x) THEN 'without a number'
        WHEN m.late THEN 'stored after the window'
        WHEN known.units IS NOT NULL AND NOT list_contains(known.units, coalesce(lower(trim(m.unit)), '')) THEN 'in an unknown unit'
        WHEN i.variable IS NULL THEN 'outside the plausible range'
    END AS reason,
    CAST($conversion AS DECIMAL(18, 4)) AS value
FROM once AS m
JOIN (
    -- The units in which a code is known; none listed: any unit will do.
    SELECT code, CASE WHEN count(*) = count(units) THEN flatten(list(units)) END AS units
    FROM item
    GROUP BY code
) AS known ON known.code = m.code
LEFT JOIN item AS i
    ON i.code = m.code
    AND (i.units IS NULL OR list_contains(i.units, coalesce(lower(trim(m.unit)), '')))
    AND m.x BETWEEN i.low AND i.high;

CREATE OR REPLACE TEMP TABLE hourly AS
WITH kept AS (
    SELECT stay, hour, charted, code, variable, value FROM judged WHERE reason IS NULL
),
-- A total (the Glasgow Coma Scale) exists where all of its parts were charted at the same time.
total AS (
    SELECT stay, hour, variable, sum(value) AS value
    FROM (
        SELECT stay, hour, charted, variable, code, CAST(avg(value) AS DECIMAL(18, 4)) AS value
        FROM kept JOIN variable USING (variable)
        WHERE hourly = 'total'
        GROUP BY ALL
    ) AS part
    JOIN variable USING (variable)
    GROUP BY stay, hour, charted, variable
    HAVING count(*) = any_value(items)
),
single AS (
    SELECT stay, hour, variable, value FROM kept JOIN variable USING (variable) WHERE hourly <> 'total'
    UNION ALL
    SELECT stay, hour, variable, value FROM total
)
SELECT
    stay, hour, variable,
    CASE WHEN any_value(hourly) = 'sum' THEN CAST(sum(value) AS DOUBLE) ELSE avg(value) END AS value
FROM single JOIN variable USING (variable)
GROUP BY stay, hour, variable;
