-- Which processes serve at this moment, told by themselves every few seconds.

CREATE TABLE role_beat (
    role        text NOT NULL,
    instance    text NOT NULL,   -- host and process id
    serving     boolean NOT NULL,
    detail      text NOT NULL,
    beat_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role, instance)
);
