-- What is settled, what could not be stored, and what was counted.

CREATE SCHEMA watchbook;
CREATE SCHEMA control_plane;

-- One row a stream: which of its sequences are settled, and how each ended. Written in the transaction
-- that stores a batch, so that "stored exactly once" is one fact and not two that must agree.
CREATE TABLE watchbook.positions (
    stream              text PRIMARY KEY,
    kind                text NOT NULL,
    settled             int8multirange NOT NULL DEFAULT '{}',
    stored              bigint NOT NULL DEFAULT 0 CHECK (stored >= 0),
    duplicates          bigint NOT NULL DEFAULT 0 CHECK (duplicates >= 0),
    dead_letters        bigint NOT NULL DEFAULT 0 CHECK (dead_letters >= 0),
    deleted             bigint NOT NULL DEFAULT 0 CHECK (deleted >= 0),
    -- Tells one stream of that name from another.
    stream_created_at   timestamptz NOT NULL,
    -- The newest settled message. A stream that lost its tail gives the same sequence to another
    -- message, and the stream's own timestamp (in nanoseconds since 1970) tells the two apart.
    newest_sequence     bigint,
    newest_published_ns bigint,
    settled_at          timestamptz
) WITH (fillfactor = 50); -- rewritten by every batch: room for HOT updates

-- Positions of streams that were made anew or lost their tail, as they were found.
CREATE TABLE watchbook.past_positions (
    LIKE watchbook.positions,
    reason   text NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now()
);

-- Messages that could not become a row, whole, with the reason.
CREATE TABLE watchbook.dead_letters (
    id           uuid NOT NULL,
    kind         text NOT NULL,
    subject      text NOT NULL,
    stream       text NOT NULL,
    stream_seq   bigint NOT NULL,
    reason       text NOT NULL,
    field        text,
    detail       text NOT NULL,
    payload      bytea NOT NULL,
    headers      jsonb,
    received_at  timestamptz NOT NULL,
    failed_at    timestamptz NOT NULL,
    replayed_at  timestamptz,
    discarded_at timestamptz,
    PRIMARY KEY (failed_at, id)
) PARTITION BY RANGE (failed_at);
-- `dead show|replay|discard ID`
CREATE INDEX dead_letters_id ON watchbook.dead_letters (id);

-- How many records of a kind happened in a minute, and how many of them failed. Each lane of a writer
-- counts in rows of its own, so that lanes never wait for each other's; readers sum over them.
CREATE TABLE watchbook.outcome_minutes (
    kind            text NOT NULL,
    minute          timestamptz NOT NULL,
    organization_id text NOT NULL, -- '_' for none, as in subjects
    lane            smallint NOT NULL,
    total           bigint NOT NULL,
    failed          bigint NOT NULL,
    PRIMARY KEY (kind, minute, organization_id, lane)
) WITH (fillfactor = 50);
