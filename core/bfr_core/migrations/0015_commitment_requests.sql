-- Commitments are asked for without a node too: by a web request, which is answered at once.

ALTER TABLE commitment ALTER COLUMN dicom_node_id DROP NOT NULL;
CREATE UNIQUE INDEX commitment_without_node ON commitment (archive_id, transaction_uid)
    WHERE dicom_node_id IS NULL;
