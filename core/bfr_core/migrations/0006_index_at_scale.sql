-- The index at 40 million studies: a compact locator, contents counted as they change, and an
-- index for modalities that are rare.

-- Keys of the prefixes that the SOP Instance UIDs of a sealed series have in common
-- (locator.py): one for nearly every series, several where UIDs are scattered.
ALTER TABLE series
    ADD COLUMN locator_key  bigint,
    ADD COLUMN locator_keys bigint[];
ALTER TABLE series ALTER COLUMN locator_keys SET STORAGE EXTERNAL;
ALTER TABLE series SET (toast_tuple_target = 1024);  -- a thousand keys make no search read more
-- What was located by a hash of each UID stays so: a whole UID is a prefix of itself.
UPDATE series SET locator_keys = old.keys
FROM (SELECT series_id, array_agg(uid_hash) AS keys FROM locator GROUP BY series_id) AS old
WHERE series.series_id = old.series_id;
DROP TABLE locator;
CREATE INDEX series_locator_key ON series (locator_key) WHERE locator_key IS NOT NULL;
-- Without a pending list: each arriving object would read through it.
CREATE INDEX series_locator_keys ON series USING gin (locator_keys)
    WITH (fastupdate = off) WHERE locator_keys IS NOT NULL;

-- Series are the most rows by far and their UIDs are long: a hash of four bytes finds them. That
-- an archive has a UID once is seen to where series are added (placing.py), under a lock.
ALTER TABLE series DROP CONSTRAINT series_series_instance_uid_archive_id_key;
CREATE INDEX series_by_uid ON series USING hash (series_instance_uid);

-- The series of a study are few: they are sorted when they are read.
DROP INDEX series_of_study;
CREATE INDEX series_of_study ON series (study_id);
CREATE INDEX series_receiving ON series (study_id) WHERE state = 'receiving';

CREATE INDEX study_by_modality ON study USING gin (modalities) WITH (fastupdate = off);

-- What each archive holds: totals, and the changes since they were last summed up. Changes are
-- rows of their own, so that two commits never wait for each other's count.
CREATE TABLE archive_content (
    archive_id  integer PRIMARY KEY REFERENCES archive ON DELETE CASCADE,
    patients    bigint NOT NULL,
    studies     bigint NOT NULL,
    series      bigint NOT NULL,
    instances   bigint NOT NULL,
    size_bytes  bigint NOT NULL
);
CREATE TABLE archive_content_change (
    archive_id  integer NOT NULL REFERENCES archive ON DELETE CASCADE,
    patients    bigint NOT NULL DEFAULT 0,
    studies     bigint NOT NULL DEFAULT 0,
    series      bigint NOT NULL DEFAULT 0,
    instances   bigint NOT NULL DEFAULT 0,
    size_bytes  bigint NOT NULL DEFAULT 0
);
INSERT INTO archive_content
SELECT archive_id,
    count(DISTINCT patient_id),
    count(study_id), coalesce(sum(number_of_series), 0),
    coalesce(sum(number_of_instances), 0), coalesce(sum(size_bytes), 0)
FROM archive LEFT JOIN study USING (archive_id)
GROUP BY archive_id;

-- A patient counts while there is a study: the row stays when the last one is deleted.
CREATE FUNCTION count_studies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO archive_content_change (archive_id, patients, studies)
        SELECT archive_id,
            count(*) FILTER (WHERE studies =
                (SELECT count(*) FROM study WHERE study.patient_id = told.patient_id)),
            sum(studies)
        FROM (SELECT archive_id, patient_id, count(*) AS studies FROM fresh GROUP BY 1, 2) AS told
        GROUP BY archive_id;
    ELSE
        INSERT INTO archive_content_change (archive_id, patients, studies)
        SELECT archive_id,
            -count(*) FILTER (WHERE NOT EXISTS
                (SELECT FROM study WHERE study.patient_id = told.patient_id)),
            -sum(studies)
        FROM (SELECT archive_id, patient_id, count(*) AS studies FROM gone GROUP BY 1, 2) AS told
        GROUP BY archive_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new_studies AFTER INSERT ON study
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION count_studies();
CREATE TRIGGER count_gone_studies AFTER DELETE ON study
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_studies();

-- What a series holds is counted when it is sealed: a change row for each arriving object would
-- cost as much as the object. What the few receiving series hold beyond that is added when read.
ALTER TABLE series
    ADD COLUMN counted_instances integer NOT NULL DEFAULT 0,
    ADD COLUMN counted_bytes     bigint NOT NULL DEFAULT 0;
UPDATE series SET counted_instances = number_of_instances, counted_bytes = size_bytes;

CREATE FUNCTION count_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO archive_content_change (archive_id, series)
        SELECT archive_id, count(*) FROM fresh GROUP BY archive_id;
    ELSE
        INSERT INTO archive_content_change (archive_id, series, instances, size_bytes)
        SELECT archive_id, -count(*), -sum(counted_instances), -sum(counted_bytes)
        FROM gone GROUP BY archive_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new_series AFTER INSERT ON series
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION count_series();
CREATE TRIGGER count_gone_series AFTER DELETE ON series
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_series();

CREATE FUNCTION count_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO archive_content_change (archive_id, instances, size_bytes)
    VALUES (NEW.archive_id, NEW.number_of_instances - NEW.counted_instances,
        NEW.size_bytes - NEW.counted_bytes);
    NEW.counted_instances := NEW.number_of_instances;
    NEW.counted_bytes := NEW.size_bytes;
    RETURN NEW;
END $$;
CREATE TRIGGER count_sealed_series BEFORE UPDATE ON series FOR EACH ROW
    WHEN (NEW.state = 'sealed' AND (NEW.number_of_instances <> NEW.counted_instances
        OR NEW.size_bytes <> NEW.counted_bytes))
    EXECUTE FUNCTION count_sealed();
