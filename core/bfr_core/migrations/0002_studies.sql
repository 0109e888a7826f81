-- The index: rows for patients, studies and series; a row per instance only while its series is
-- receiving.

CREATE TABLE patient (
    patient_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id          integer NOT NULL REFERENCES archive,
    patient_identifier  text NOT NULL,              -- Patient ID (0010,0020); '' when not sent
    issuer              text NOT NULL,              -- Issuer of Patient ID (0010,0021)
    name                text NOT NULL,              -- Patient's Name, groups joined by '='
    name_normalised     text COLLATE "C" NOT NULL,  -- case and accents folded, by names.normalise
    birth_date          date,
    sex                 text NOT NULL,
    updated_at          timestamptz NOT NULL DEFAULT now()
);
-- Objects without a Patient ID never meet in one patient: such a row belongs to its study alone.
CREATE UNIQUE INDEX patient_identity ON patient (archive_id, patient_identifier, issuer)
    WHERE patient_identifier <> '';
CREATE INDEX patient_identifier ON patient (patient_identifier);
CREATE INDEX patient_identifier_prefix
    ON patient ((replace(patient_identifier, '-', '') COLLATE "C"));
CREATE INDEX patient_name_prefix ON patient (name_normalised);
CREATE INDEX patient_name_infix ON patient USING gin (name_normalised gin_trgm_ops);
CREATE INDEX patient_birth_date ON patient (birth_date);

CREATE TABLE study (
    study_id                    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id                  integer NOT NULL REFERENCES archive,
    patient_id                  bigint NOT NULL REFERENCES patient,
    study_instance_uid          text COLLATE "C" NOT NULL,
    study_date                  date,
    study_time                  time,
    timezone_offset             text NOT NULL,
    accession_number            text COLLATE "C" NOT NULL,
    study_identifier            text COLLATE "C" NOT NULL,  -- Study ID (0020,0010)
    description                 text NOT NULL,
    referring_physician         text NOT NULL,
    referring_physician_normalised text COLLATE "C" NOT NULL,
    institution                 text NOT NULL,
    modalities                  text[] NOT NULL,
    body_parts                  text[] NOT NULL,
    number_of_series            integer NOT NULL DEFAULT 0,
    number_of_instances         integer NOT NULL DEFAULT 0,
    size_bytes                  bigint NOT NULL DEFAULT 0,
    received_at                 timestamptz NOT NULL DEFAULT now(),
    UNIQUE (study_instance_uid, archive_id)
);
CREATE INDEX study_of_patient ON study (patient_id, study_date DESC NULLS LAST, study_id DESC);
CREATE INDEX study_by_date ON study (archive_id, study_date DESC NULLS LAST, study_id DESC);
CREATE INDEX study_by_date_anywhere ON study (study_date DESC NULLS LAST, study_id DESC);
CREATE INDEX study_by_accession ON study (accession_number) WHERE accession_number <> '';
CREATE INDEX study_by_arrival ON study (received_at DESC, study_id DESC);

CREATE TABLE series (
    series_id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id                bigint NOT NULL REFERENCES study,
    archive_id              integer NOT NULL REFERENCES archive,
    series_instance_uid     text COLLATE "C" NOT NULL,
    modality                text COLLATE "C" NOT NULL,
    series_number           integer,
    description             text NOT NULL,
    body_part               text NOT NULL,
    performed_date          date,   -- Performed Procedure Step Start Date (0040,0244)
    performed_time          time,   -- Performed Procedure Step Start Time (0040,0245)
    request_attributes      jsonb,  -- items of (0040,0275) as DICOM JSON, when sent
    number_of_instances     integer NOT NULL DEFAULT 0,
    size_bytes              bigint NOT NULL DEFAULT 0,
    state                   text NOT NULL CHECK (state IN ('receiving', 'sealed')),
    last_received_at        timestamptz NOT NULL DEFAULT now(),
    revision                integer NOT NULL DEFAULT 0,  -- counts commits to the series
    manifest_key            text,     -- the blob that replaced the instance rows
    manifest_index_bytes    integer,  -- length of its first part
    manifest_bytes          integer,
    representative_sop_instance_uid text,  -- the first instance with pixels, for thumbnails
    UNIQUE (series_instance_uid, archive_id)
);
CREATE INDEX series_of_study ON series (study_id, series_number, series_id);

CREATE TABLE instance (
    instance_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_id           bigint NOT NULL REFERENCES series,
    archive_id          integer NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    sop_class_uid       text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    instance_number     integer,
    pack_key            text NOT NULL,
    offset_bytes        bigint NOT NULL,   -- of the Part 10 bytes within the pack
    length_bytes        bigint NOT NULL,
    dataset_offset      integer NOT NULL,  -- of the data set within the Part 10 bytes
    digest              bytea NOT NULL,    -- SHA-256 of the data set
    frames              bytea,             -- where the frames lie, JSON; null without pixels
    header              bytea NOT NULL,    -- DICOM JSON without pixel data, zstd
    UNIQUE (sop_instance_uid, archive_id)
);
CREATE INDEX instance_of_series ON instance (series_id);

-- SOP Instance UID to series, for sealed instances. The hash may collide: the manifest decides.
CREATE TABLE locator (
    uid_hash    bigint NOT NULL,
    series_id   bigint NOT NULL,
    PRIMARY KEY (uid_hash, series_id)
);
