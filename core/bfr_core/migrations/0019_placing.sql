-- The patient, study and series of a received object, made in one call where they are missing
-- (placing.py).

-- The study comes before the series for everybody, so that two senders wait for each other but
-- never in a ring. `refusal` names the reason when the object has no place; nothing is left then.
CREATE FUNCTION place_series(
    told jsonb, OUT of_series bigint, OUT of_study bigint, OUT of_patient bigint,
    OUT is_new boolean, OUT refusal text
) LANGUAGE plpgsql AS $$
DECLARE
    one record;
    stored record;
    new_study boolean := false;
BEGIN
    is_new := false;
    SELECT * INTO one FROM jsonb_to_record(told) AS sent(
        archive_id integer, patient_identifier text, issuer text, name text,
        name_normalised text, birth_date date, sex text, study_instance_uid text,
        study_date date, study_time time, timezone_offset text, accession_number text,
        study_identifier text, study_description text, referring_physician text,
        referring_physician_normalised text, institution text, series_instance_uid text,
        modality text, series_number integer, series_description text, body_part text,
        performed_date date, performed_time time, request_attributes jsonb,
        received_at timestamptz);

    -- A series that is there tells all; one of another study makes no study for the object.
    SELECT series.series_id, series.study_id, study.patient_id, study.study_instance_uid,
        patient.patient_identifier, patient.issuer
    INTO stored
    FROM series JOIN study USING (study_id) JOIN patient USING (patient_id)
    WHERE series.series_instance_uid = one.series_instance_uid
        AND series.archive_id = one.archive_id;
    IF FOUND THEN
        of_series := stored.series_id;
        of_study := stored.study_id;
        of_patient := stored.patient_id;
        IF stored.study_instance_uid <> one.study_instance_uid THEN
            refusal := 'series of another study';
        ELSIF (stored.patient_identifier, stored.issuer)
                <> (one.patient_identifier, one.issuer) THEN
            refusal := 'study of another patient';
        END IF;
        RETURN;
    END IF;

    FOR attempt IN 1..2 LOOP
        SELECT study.study_id, study.patient_id, patient.patient_identifier, patient.issuer
        INTO stored
        FROM study JOIN patient USING (patient_id)
        WHERE study.study_instance_uid = one.study_instance_uid
            AND study.archive_id = one.archive_id;
        IF FOUND THEN
            of_study := stored.study_id;
            of_patient := stored.patient_id;
            IF (stored.patient_identifier, stored.issuer)
                    <> (one.patient_identifier, one.issuer) THEN
                refusal := 'study of another patient';
                RETURN;
            END IF;
            EXIT;
        END IF;
        -- Asked after the study was not found: whoever deletes it commits both at once.
        IF is_deleted(one.archive_id, one.study_instance_uid, one.series_instance_uid) THEN
            refusal := 'deleted';
            RETURN;
        END IF;
        INSERT INTO patient AS known (archive_id, patient_identifier, issuer, name,
            name_normalised, birth_date, sex, updated_at)
        VALUES (one.archive_id, one.patient_identifier, one.issuer, one.name,
            one.name_normalised, one.birth_date, one.sex, coalesce(one.received_at, now()))
        ON CONFLICT (archive_id, patient_identifier, issuer) WHERE patient_identifier <> ''
        DO UPDATE SET name = excluded.name, name_normalised = excluded.name_normalised,
            birth_date = coalesce(excluded.birth_date, known.birth_date),
            sex = CASE WHEN excluded.sex = '' THEN known.sex ELSE excluded.sex END,
            updated_at = excluded.updated_at
        WHERE one.received_at IS NULL OR known.updated_at <= excluded.updated_at
        RETURNING known.patient_id INTO of_patient;
        IF of_patient IS NULL THEN  -- something newer has told of the patient
            SELECT patient.patient_id INTO of_patient FROM patient
            WHERE patient.archive_id = one.archive_id
                AND patient.patient_identifier = one.patient_identifier
                AND patient.issuer = one.issuer AND patient.patient_identifier <> '';
        END IF;
        -- The modality is known from the first: it is indexed, and a change of it costs a new
        -- entry in every index of the study.
        INSERT INTO study (archive_id, patient_id, study_instance_uid, study_date, study_time,
            timezone_offset, accession_number, study_identifier, description,
            referring_physician, referring_physician_normalised, institution, modalities,
            body_parts, received_at)
        VALUES (one.archive_id, of_patient, one.study_instance_uid, one.study_date,
            one.study_time, one.timezone_offset, one.accession_number, one.study_identifier,
            one.study_description, one.referring_physician,
            one.referring_physician_normalised, one.institution,
            array_remove(ARRAY[one.modality], ''), '{}', coalesce(one.received_at, now()))
        ON CONFLICT (study_instance_uid, archive_id) DO NOTHING
        RETURNING study.study_id INTO of_study;
        IF FOUND THEN
            new_study := true;
            EXIT;
        END IF;
        -- Another process was first: its study is seen by the next look.
    END LOOP;
    IF of_study IS NULL THEN
        refusal := 'study removed';
        RETURN;
    END IF;

    -- The index of series does not keep two of one UID apart (0006): who adds one is alone with it.
    PERFORM pg_advisory_xact_lock(one.archive_id, hashtext(one.series_instance_uid));
    SELECT series.series_id, series.study_id INTO stored FROM series
    WHERE series.series_instance_uid = one.series_instance_uid
        AND series.archive_id = one.archive_id;
    IF FOUND THEN  -- another process was first
        of_series := stored.series_id;
        IF stored.study_id <> of_study THEN
            refusal := 'series of another study';
        END IF;
    ELSIF is_deleted(one.archive_id, one.study_instance_uid, one.series_instance_uid) THEN
        refusal := 'deleted';
    ELSE
        INSERT INTO series (study_id, archive_id, series_instance_uid, modality, series_number,
            description, body_part, performed_date, performed_time, request_attributes, state)
        VALUES (of_study, one.archive_id, one.series_instance_uid, one.modality,
            one.series_number, one.series_description, one.body_part, one.performed_date,
            one.performed_time, one.request_attributes, 'receiving')
        RETURNING series.series_id INTO of_series;
        UPDATE study SET number_of_series = number_of_series + 1,
            modalities = (SELECT coalesce(array_agg(DISTINCT each ORDER BY each), '{}')
                FROM unnest(modalities || one.modality) AS each WHERE each <> ''),
            body_parts = (SELECT coalesce(array_agg(DISTINCT each ORDER BY each), '{}')
                FROM unnest(body_parts || one.body_part) AS each WHERE each <> '')
        WHERE study.study_id = of_study;
        is_new := true;
    END IF;
    IF refusal IS NOT NULL AND new_study THEN
        DELETE FROM study WHERE study.study_id = of_study;
        RETURN;
    END IF;
    IF new_study THEN
        INSERT INTO event (kind, archive_id, study_instance_uid)
        VALUES ('study_created', one.archive_id, one.study_instance_uid);
    END IF;
    IF is_new THEN
        INSERT INTO event (kind, archive_id, study_instance_uid, series_instance_uid)
        VALUES ('series_created', one.archive_id, one.study_instance_uid,
            one.series_instance_uid);
    END IF;
END $$;

-- Whether the study, or this series of it, was deleted from the archive.
CREATE FUNCTION is_deleted(of_archive integer, of_study text, of_series text)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM deletion
        WHERE study_instance_uid = of_study AND archive_id = of_archive
            AND undone_at IS NULL AND sop_instance_uid IS NULL
            AND (series_instance_uid IS NULL OR series_instance_uid = of_series))
$$;
