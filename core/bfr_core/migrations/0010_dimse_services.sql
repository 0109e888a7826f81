-- What a node has agreed on beside its address, and what the DIMSE services of workflow keep:
-- storage commitment, requests with their examinations, performed procedure steps.

ALTER TABLE dicom_node
    ADD COLUMN host_checked boolean NOT NULL DEFAULT false,   -- it calls from `host` only
    ADD COLUMN tls_required boolean NOT NULL DEFAULT false,   -- it calls, and is called, over TLS only
    ADD COLUMN certificate text NOT NULL DEFAULT '',          -- its SHA-256 or subject; '': any trusted
    ADD COLUMN identity_required boolean NOT NULL DEFAULT false,  -- it names a user when it calls
    ADD COLUMN jwt_secret text NOT NULL DEFAULT '',           -- of its JSON Web Tokens (HS256)
    ADD COLUMN associations_max integer CHECK (associations_max > 0),
    ADD COLUMN associations_per_minute_max integer CHECK (associations_per_minute_max > 0),
    ADD COLUMN pdu_max_bytes bigint CHECK (pdu_max_bytes >= 4096),
    ADD COLUMN availability_wanted boolean NOT NULL DEFAULT false;  -- told of each complete study
-- Nodes from before may call from elsewhere; whoever registers one now says so.
ALTER TABLE dicom_node ALTER COLUMN host_checked SET DEFAULT true;

-- Users that a node may name (PS3.7 §D.3.3.7).
CREATE TABLE node_user (
    dicom_node_id   integer NOT NULL REFERENCES dicom_node,
    username        text NOT NULL,
    password_digest text NOT NULL,  -- '': the name is enough
    PRIMARY KEY (dicom_node_id, username)
);

-- Storage commitment: requests that nodes have made of us (scp) and we of nodes (scu).
CREATE TABLE commitment (
    commitment_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role            text NOT NULL CHECK (role IN ('scp', 'scu')),
    archive_id      integer NOT NULL REFERENCES archive,
    dicom_node_id   integer NOT NULL REFERENCES dicom_node,
    transaction_uid text COLLATE "C" NOT NULL,
    requested       jsonb NOT NULL,  -- [[SOP class, SOP instance], …]
    result          jsonb,           -- {"committed": as requested, "failed": each with its reason}
    requested_at    timestamptz NOT NULL DEFAULT now(),
    reporting_until timestamptz,     -- somebody is telling the node, until then at the most
    reported_at     timestamptz      -- the node was told, or has told us
);
CREATE INDEX commitment_transaction ON commitment (transaction_uid);

-- Requests and their examinations: what is to be done, as a RIS tells of it.
CREATE TABLE service_request (
    service_request_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id          integer NOT NULL REFERENCES archive,
    accession_number    text COLLATE "C" NOT NULL CHECK (accession_number <> ''),
    attributes          jsonb NOT NULL,  -- of patient, visit and request, DICOM JSON
    updated_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (accession_number, archive_id)
);
-- One scheduled procedure step of one requested procedure.
CREATE TABLE examination (
    examination_id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_request_id          bigint NOT NULL REFERENCES service_request,
    archive_id                  integer NOT NULL REFERENCES archive,
    scheduled_procedure_step_id text COLLATE "C" NOT NULL CHECK (scheduled_procedure_step_id <> ''),
    study_instance_uid          text COLLATE "C" NOT NULL,
    scheduled_on                date NOT NULL,
    status                      text NOT NULL CHECK (status IN ('SCHEDULED', 'ARRIVED', 'READY',
                                    'STARTED', 'DEPARTED', 'COMPLETED', 'DISCONTINUED')),
    attributes                  jsonb NOT NULL,  -- of procedure and step, DICOM JSON
    updated_at                  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (service_request_id, scheduled_procedure_step_id)
);
CREATE INDEX examination_by_day ON examination (archive_id, scheduled_on, examination_id);
CREATE INDEX examination_of_study ON examination (study_instance_uid, archive_id);

-- Modality performed procedure steps: what was done, as a modality tells of it.
CREATE TABLE performed_procedure_step (
    performed_procedure_step_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id          integer NOT NULL REFERENCES archive,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    status              text NOT NULL CHECK (status IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
    attributes          jsonb NOT NULL,  -- all that was told so far, DICOM JSON
    created_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (sop_instance_uid, archive_id)
);
-- Each message about it, as it came.
CREATE TABLE performed_procedure_step_message (
    message_id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    performed_procedure_step_id bigint NOT NULL REFERENCES performed_procedure_step,
    service             text NOT NULL CHECK (service IN ('N-CREATE', 'N-SET')),
    caller              text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    dataset             bytea NOT NULL,
    received_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX message_of_performed_step
    ON performed_procedure_step_message (performed_procedure_step_id, message_id);
CREATE TABLE performed_examination (
    performed_procedure_step_id bigint NOT NULL REFERENCES performed_procedure_step,
    examination_id              bigint NOT NULL REFERENCES examination,
    PRIMARY KEY (examination_id, performed_procedure_step_id)
);
