-- Where the pages of searches ended, so that the next one goes on there (search_positions.py).
-- Unlogged: after a crash the next page is counted from the beginning instead.
CREATE UNLOGGED TABLE search_position (
    search_digest       bytea NOT NULL,    -- SHA-256 of who searches for what; no values are kept
    page_offset         integer NOT NULL,  -- of the page that begins behind this position
    study_date          date,
    study_id            bigint NOT NULL,
    series_number       integer,
    series_id           bigint,
    instance_number     integer,
    sop_instance_uid    text,
    kept_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (search_digest, page_offset)
);
