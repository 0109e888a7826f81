-- Connections, their archives and their DICOM nodes.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE connection (
    connection_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE,
    environment     text NOT NULL CHECK (environment IN ('test', 'production')),
    system_hsa_id   text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE archive (
    archive_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection_id   integer NOT NULL UNIQUE REFERENCES connection,  -- exactly one archive each
    ae_title        text NOT NULL UNIQUE,
    name            text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE dicom_node (
    dicom_node_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection_id   integer NOT NULL REFERENCES connection,
    ae_title        text NOT NULL,
    host            text NOT NULL,
    port            integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (connection_id, ae_title)
);
