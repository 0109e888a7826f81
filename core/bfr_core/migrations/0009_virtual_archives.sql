-- Virtual archives: one AE title each over all published data, for nodes that are audited for it.

CREATE TABLE virtual_archive (
    virtual_archive_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ae_title            text NOT NULL UNIQUE,
    name                text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now()
);

-- A node whose system has been found to meet the law's demands on shared records (S-068).
CREATE TABLE audited_node (
    virtual_archive_id  integer NOT NULL REFERENCES virtual_archive,
    dicom_node_id       integer NOT NULL REFERENCES dicom_node,
    audited_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (virtual_archive_id, dicom_node_id)
);

-- An association calls one archive: no AE title is that of two, of whichever kind.
CREATE FUNCTION refuse_taken_ae_title() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('ae_title ' || NEW.ae_title, 0));
    IF (TG_TABLE_NAME = 'archive' AND EXISTS (
            SELECT FROM virtual_archive WHERE ae_title = NEW.ae_title))
        OR (TG_TABLE_NAME = 'virtual_archive' AND EXISTS (
            SELECT FROM archive WHERE ae_title = NEW.ae_title))
    THEN
        RAISE unique_violation USING MESSAGE = 'the AE title is taken';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER taken_ae_title BEFORE INSERT OR UPDATE OF ae_title ON archive
    FOR EACH ROW EXECUTE FUNCTION refuse_taken_ae_title();
CREATE TRIGGER taken_ae_title BEFORE INSERT OR UPDATE OF ae_title ON virtual_archive
    FOR EACH ROW EXECUTE FUNCTION refuse_taken_ae_title();
