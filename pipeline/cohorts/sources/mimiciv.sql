-- The stays that the cohort is chosen from. Diagnoses, procedures and billing codes are written after discharge and
-- are not read at all.
CREATE TEMP TABLE candidate AS
SELECT
    i.subject_id,
    i.stay_id,
    i.intime AS start,
    i.outtime AS stop,
    a.deathtime AS death,
    p.anchor_age + year(i.intime) - p.anchor_year AS age,
    p.gender AS sex,
    a.admission_type,
    a.hospital_expire_flag AS label
FROM icustays AS i
LEFT JOIN admissions AS a USING (subject_id, hadm_id)
LEFT JOIN patients AS p USING (subject_id);
