-- The trace of every access, append-only, partitioned by month (HSLF-FS 2016:40 4 kap. 9 §).

CREATE TABLE audit_record (
    audit_record_id     uuid NOT NULL DEFAULT gen_random_uuid(),
    recorded_at         timestamptz NOT NULL DEFAULT now(),
    action              text NOT NULL,
    outcome             text NOT NULL CHECK (outcome IN ('success', 'refused')),
    caller_kind         text NOT NULL,
    caller              text NOT NULL,
    remote_address      text,
    door                text NOT NULL,
    archive_id          integer,
    patient_id          bigint,   -- our row, not the person's number
    study_instance_uid  text,
    series_instance_uid text,
    sop_instance_uid    text,
    detail              jsonb
) PARTITION BY RANGE (recorded_at);
CREATE INDEX audit_record_of_study ON audit_record (study_instance_uid, recorded_at);
CREATE INDEX audit_record_of_patient ON audit_record (patient_id, recorded_at);
CREATE TABLE audit_record_default PARTITION OF audit_record DEFAULT;

-- Makes the partition of the month that holds `day`; called by the daily job as the app role.
-- Records of that month that went to the default partition, while no job ran, move into it.
CREATE FUNCTION create_audit_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first_day date := date_trunc('month', day)::date;
    next_month date := (first_day + interval '1 month')::date;
    partition_name text := 'audit_record_' || to_char(first_day, 'YYYY_MM');
BEGIN
    IF to_regclass('public.' || partition_name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE audit_record INCLUDING ALL)', partition_name);
        LOCK TABLE audit_record_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'WITH moved AS (DELETE FROM audit_record_default'
            ' WHERE recorded_at >= %L AND recorded_at < %L RETURNING *)'
            ' INSERT INTO %I SELECT * FROM moved', first_day, next_month, partition_name);
        EXECUTE format(
            'ALTER TABLE audit_record ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition_name, first_day, next_month);
    END IF;
END $$;
