-- The spool: blobs in the local folder that are to go to buckets, or lie there too. What has left
-- the folder has no row any more, so that the table stays as small as the spool.

CREATE TABLE spooled_blob (
    key         text COLLATE "C" PRIMARY KEY,
    spooled_at  timestamptz NOT NULL DEFAULT now(),
    copies      text[] NOT NULL DEFAULT '{}'  -- the buckets where it has been read back whole
);
CREATE INDEX spooled_blob_by_age ON spooled_blob (spooled_at, key);
