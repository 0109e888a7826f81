-- The spool: blobs in the local folder that are to go to buckets, or lie there too. What has left
-- the folder has no row any more, so that the table stays as small as the spool.

CREATE TABLE spooled_blob (
    key             text COLLATE "C" PRIMARY KEY,
    spooled_at      timestamptz NOT NULL DEFAULT now(),
    first_copy_at   timestamptz,  -- when the copy in the first bucket had been read back whole
    second_copy_at  timestamptz   -- the same for the second; null where there is none
);
CREATE INDEX spooled_blob_first ON spooled_blob (spooled_at, key) WHERE first_copy_at IS NULL;
CREATE INDEX spooled_blob_second ON spooled_blob (spooled_at, key) WHERE second_copy_at IS NULL;
