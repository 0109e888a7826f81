-- The worklist: workitems (Unified Procedure Steps), who subscribes to them, and what is reported.

CREATE TABLE workitem (
    workitem_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id      integer NOT NULL REFERENCES archive,
    workitem_uid    text COLLATE "C" NOT NULL UNIQUE,
    state           text NOT NULL
        CHECK (state IN ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED')),
    transaction_uid text,            -- the performer's lock; never part of the data set
    dataset         jsonb NOT NULL,  -- DICOM JSON model; {} when deleted
    matchable       jsonb NOT NULL,  -- the same as searches compare it, by workitem_search
    changed_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz      -- the UID stays, to tell "gone" from "never there"
);
CREATE INDEX workitem_matchable ON workitem USING gin (matchable jsonb_path_ops);
CREATE INDEX workitem_of_archive ON workitem (archive_id, workitem_id) WHERE deleted_at IS NULL;
CREATE INDEX workitem_final ON workitem (changed_at)
    WHERE deleted_at IS NULL AND state IN ('COMPLETED', 'CANCELED');

-- To all workitems, now and later, or to those that match; of one archive, or of all (0).
CREATE TABLE worklist_subscription (
    receiving_ae    text NOT NULL,
    archive_id      integer NOT NULL,
    worklist_uid    text NOT NULL,
    deletion_lock   boolean NOT NULL,
    filter          jsonb NOT NULL,  -- [[tag, [value, …]], …]
    PRIMARY KEY (receiving_ae, archive_id, worklist_uid)
);

CREATE TABLE workitem_subscription (
    workitem_id     bigint NOT NULL REFERENCES workitem,
    receiving_ae    text NOT NULL,
    deletion_lock   boolean NOT NULL,
    PRIMARY KEY (workitem_id, receiving_ae)
);
CREATE INDEX workitem_subscription_of_receiver ON workitem_subscription (receiving_ae);

-- Outbox: a row per report and receiver, written with the change. Numbers grow in commit order.
CREATE TABLE workitem_report (
    workitem_report_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    written_at          timestamptz NOT NULL DEFAULT now(),
    receiving_ae        text NOT NULL,
    archive_id          integer NOT NULL,
    report              jsonb NOT NULL
);
CREATE INDEX workitem_report_of_receiver ON workitem_report (receiving_ae, workitem_report_id);
CREATE INDEX workitem_report_written ON workitem_report (written_at);

-- How far the reports of a receiver have been sent, at each root it listens at (0: the joint one).
CREATE TABLE workitem_receiver (
    receiving_ae    text NOT NULL,
    archive_id      integer NOT NULL,
    sent_id         bigint NOT NULL,
    PRIMARY KEY (receiving_ae, archive_id)
);
