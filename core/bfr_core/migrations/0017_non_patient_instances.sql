-- Instances of no patient: hanging protocols, colour palettes, implant templates … They are few, and
-- each is read alone, so that they stay rows; their bytes lie in packs like all others.

CREATE TABLE non_patient_instance (
    non_patient_instance_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id          integer NOT NULL REFERENCES archive,
    category            text NOT NULL,  -- the resource: "hanging-protocols", …
    sop_instance_uid    text COLLATE "C" NOT NULL,
    sop_class_uid       text COLLATE "C" NOT NULL,
    transfer_syntax_uid text COLLATE "C" NOT NULL,
    pack_key            text COLLATE "C" NOT NULL,
    offset_bytes        bigint NOT NULL,
    length_bytes        bigint NOT NULL,
    dataset_offset      integer NOT NULL,
    digest              bytea NOT NULL,  -- SHA-256 of the data set
    header              bytea NOT NULL,  -- DICOM JSON without large values, zstd
    matchable           jsonb NOT NULL,  -- the same as searches compare it, by workitem_search
    received_at         timestamptz NOT NULL,
    UNIQUE (sop_instance_uid, archive_id)
);
CREATE INDEX non_patient_instance_of_category
    ON non_patient_instance (archive_id, category, non_patient_instance_id);
CREATE INDEX non_patient_instance_matchable
    ON non_patient_instance USING gin (matchable jsonb_path_ops);
CREATE INDEX non_patient_instance_by_pack ON non_patient_instance (pack_key);
