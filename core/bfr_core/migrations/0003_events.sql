-- What happened, written in the transaction in which it happened (outbox).

CREATE TABLE event (
    event_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at         timestamptz NOT NULL DEFAULT now(),
    kind                text NOT NULL,
    archive_id          integer REFERENCES archive,
    study_instance_uid  text,
    series_instance_uid text
);
