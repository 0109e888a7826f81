-- Deletions, which are tombstones first and removed bytes later; cases; where long work stands.

CREATE TABLE deletion (
    deletion_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id          integer NOT NULL REFERENCES archive,
    study_instance_uid  text COLLATE "C" NOT NULL,
    series_instance_uid text COLLATE "C",  -- null: the whole study
    sop_instance_uid    text COLLATE "C",  -- null: the whole series
    reason              text NOT NULL,
    deleted_by          text NOT NULL,
    deleted_at          timestamptz NOT NULL,
    undone_by           text,
    undone_at           timestamptz,
    purged_at           timestamptz,       -- when the bytes had left the packs
    blob_key            text NOT NULL      -- the same, beside the packs
);
CREATE UNIQUE INDEX deletion_of_object
    ON deletion (study_instance_uid, archive_id, series_instance_uid, sop_instance_uid)
    NULLS NOT DISTINCT WHERE undone_at IS NULL;
CREATE INDEX deletion_by_blob ON deletion (blob_key);

CREATE TABLE deleted_instance (
    archive_id          integer NOT NULL REFERENCES archive,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    deletion_id         bigint NOT NULL REFERENCES deletion,
    series_instance_uid text COLLATE "C" NOT NULL,
    pack_key            text,              -- null: the bytes are gone
    offset_bytes        bigint NOT NULL,
    length_bytes        bigint NOT NULL,
    dataset_offset      integer NOT NULL,
    digest              bytea NOT NULL,
    PRIMARY KEY (sop_instance_uid, archive_id)
);
CREATE INDEX deleted_instance_of_deletion ON deleted_instance (deletion_id);
CREATE INDEX deleted_instance_by_pack ON deleted_instance (pack_key);

-- What a person must look at; "case" alone is a word of SQL. One open case per object and kind.
CREATE TABLE archive_case (
    case_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL,
    archive_id          integer NOT NULL REFERENCES archive,
    study_instance_uid  text COLLATE "C" NOT NULL DEFAULT '',
    series_instance_uid text COLLATE "C" NOT NULL DEFAULT '',
    sop_instance_uid    text COLLATE "C" NOT NULL DEFAULT '',
    detail              text NOT NULL,     -- one sentence, never a person's id or name
    opened_at           timestamptz NOT NULL DEFAULT now(),
    closed_at           timestamptz,
    closed_by           text
);
CREATE UNIQUE INDEX open_case ON archive_case
    (archive_id, study_instance_uid, series_instance_uid, sop_instance_uid, kind)
    WHERE closed_at IS NULL;

-- How far work has come that takes days and goes on where it was.
CREATE TABLE work_position (
    work    text PRIMARY KEY,
    place   text NOT NULL
);
