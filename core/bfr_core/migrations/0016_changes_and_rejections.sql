-- What happens to objects is told in order, and by rejection notes.

-- The change feed: events get numbers in the order in which they could be seen (changes.py).

ALTER TABLE event
    ADD COLUMN sop_instance_uid text,      -- null: the whole series or study
    ADD COLUMN change_number bigint,       -- null: not numbered yet
    ADD COLUMN published_at timestamptz;   -- when it was numbered; grows with the number

-- No event of before is under way: this transaction has the table for itself.
UPDATE event SET change_number = event_id, published_at = latest
FROM (SELECT event_id AS id, max(occurred_at) OVER (ORDER BY event_id) AS latest FROM event) AS one
WHERE event_id = id;

CREATE INDEX event_unnumbered ON event (event_id) WHERE change_number IS NULL;
CREATE UNIQUE INDEX event_by_change ON event (change_number) WHERE change_number IS NOT NULL;
CREATE INDEX event_by_archive ON event (archive_id, change_number) WHERE change_number IS NOT NULL;
CREATE INDEX event_by_publication ON event (published_at, change_number)
    WHERE change_number IS NOT NULL;

-- Rejections: deletions that a note tells of, which is an object of the study itself; the deletion
-- bears the UIDs of its note, and its objects may lie in several series (rejecting.py).
ALTER TABLE deletion ADD COLUMN rejection_code text;  -- code value of DCM; null: no rejection
ALTER TABLE dicom_node
    ADD COLUMN rejections_accepted boolean NOT NULL DEFAULT false;  -- its notes take effect
