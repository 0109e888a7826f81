-- The next object of a series under way, registered in one call (continuing.py).

-- True when the object exists now; false when nothing was done. The row of the series comes first:
-- who waits for its lock looks at it again, so a series that was sealed meanwhile is left alone.
-- The look at sealed and deleted objects comes last, as a statement of its own: another series that holds the
-- UID as a row makes the insert wait for its sealing, and what has ended by then is seen.
CREATE FUNCTION continue_series(
    of_series bigint, of_archive integer, uid text, class_uid text, syntax_uid text,
    number integer, key text, at_bytes bigint, bytes bigint, data_at integer, sha256 bytea,
    frame_places bytea, header_json bytea, keys bigint[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    of_study bigint;
BEGIN
    UPDATE series SET
        number_of_instances = number_of_instances + 1,
        size_bytes = size_bytes + bytes,
        representative_sop_instance_uid = coalesce(representative_sop_instance_uid,
            CASE WHEN frame_places IS NOT NULL THEN uid END),
        last_received_at = clock_timestamp(), revision = revision + 1
    WHERE series_id = of_series AND state = 'receiving' AND manifest_key IS NULL
    RETURNING study_id INTO of_study;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO instance (series_id, archive_id, sop_instance_uid, sop_class_uid,
        transfer_syntax_uid, instance_number, pack_key, offset_bytes, length_bytes,
        dataset_offset, digest, frames, header)
    VALUES (of_series, of_archive, uid, class_uid, syntax_uid, number, key, at_bytes, bytes,
        data_at, sha256, frame_places, header_json);
    UPDATE study SET
        number_of_instances = number_of_instances + 1,
        size_bytes = size_bytes + bytes
    WHERE study_id = of_study;
    IF EXISTS (
        SELECT FROM series WHERE archive_id = of_archive AND manifest_key IS NOT NULL
            AND (locator_key = ANY(keys) OR locator_keys && keys)
    ) OR EXISTS (
        SELECT FROM deleted_instance JOIN deletion USING (deletion_id)
        WHERE deleted_instance.sop_instance_uid = uid
            AND deleted_instance.archive_id = of_archive AND undone_at IS NULL
    ) THEN
        RAISE unique_violation USING MESSAGE = 'the object may be sealed or deleted already';
    END IF;
    RETURN true;
END $$;
