-- What is watched, how it stands, and whom it is told.

-- One row for each rule and group that is or was anything but quiet. Moved only together with its
-- transition and what is to be told about it, and only from the version that was read.
CREATE TABLE watchbook.alerts (
    id           uuid PRIMARY KEY,          -- of rule and group: the same one for ever
    rule         text NOT NULL,
    organization_id text NOT NULL,          -- '_' where the group names none, as in subjects
    labels       jsonb NOT NULL,            -- the group's, the rule's, its name and severity
    annotations  jsonb NOT NULL DEFAULT '{}',
    severity     text NOT NULL,
    version      bigint NOT NULL,
    condition    text NOT NULL CHECK (condition IN ('inactive', 'pending', 'firing', 'recovering')),
    data         text NOT NULL CHECK (data IN ('ok', 'low_samples', 'no_data', 'stale')),
    reason       text NOT NULL,             -- in words
    state        jsonb NOT NULL,            -- what the evaluation keeps: since when, figures
    -- For each receiver what it was told last, and when.
    told         jsonb NOT NULL DEFAULT '{}',
    acknowledgement jsonb,                  -- who, why, until when
    started_at   timestamptz,               -- of the episode that fires, or fired last
    ended_at     timestamptz,
    changed_at   timestamptz NOT NULL
);
CREATE INDEX alerts_open ON watchbook.alerts (rule) WHERE condition <> 'inactive';
CREATE INDEX alerts_quiet ON watchbook.alerts (changed_at) WHERE condition = 'inactive';

-- Every change of an alert's condition.
CREATE TABLE watchbook.alert_transitions (
    alert_id     uuid NOT NULL,
    version      bigint NOT NULL,
    from_condition text NOT NULL,
    to_condition text NOT NULL,
    data         text NOT NULL,
    reason       text NOT NULL,
    figures      jsonb NOT NULL,
    silenced_by  uuid,
    at           timestamptz NOT NULL,
    PRIMARY KEY (alert_id, version)
);
CREATE INDEX alert_transitions_at ON watchbook.alert_transitions (at);

-- What is to be told: a row a notification, written with the transition that caused it.
CREATE TABLE watchbook.outbox (
    id           uuid PRIMARY KEY,          -- stable over all tries: receivers know by it what they have
    position     bigint GENERATED ALWAYS AS IDENTITY,
    receiver     text NOT NULL,
    -- Rows of a receiver with the same key go out in their order; '*' is a digest, ordered with all of them.
    group_key    text NOT NULL,
    notification jsonb NOT NULL,
    created_at   timestamptz NOT NULL,
    due_at       timestamptz NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    claimed_by   text,
    claimed_until timestamptz,
    delivered_at timestamptz,
    failed_at    timestamptz,               -- given up; kept and shown
    problem      text                       -- of the last try, without secrets
);
CREATE INDEX outbox_open ON watchbook.outbox (receiver, group_key, position) WHERE delivered_at IS NULL AND failed_at IS NULL;
-- How many are waiting or were given up, by receiver.
CREATE INDEX outbox_undelivered ON watchbook.outbox (receiver) WHERE delivered_at IS NULL;
CREATE INDEX outbox_created ON watchbook.outbox (created_at);

-- While one matches an alert, its firing is not told.
CREATE TABLE watchbook.silences (
    id           uuid PRIMARY KEY,
    matchers     jsonb NOT NULL,
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL CHECK (ends_at > starts_at),
    recurrence   jsonb,                     -- days, local times and their time zone; NULL for all of the time between
    created_by   text NOT NULL,
    reason       text NOT NULL,
    created_at   timestamptz NOT NULL,
    ended_at     timestamptz,               -- ended by hand
    ended_by     text
);
CREATE INDEX silences_ends ON watchbook.silences (ends_at);

-- How entities are: strategies, projects, containers, organizations.
CREATE TABLE watchbook.health (
    organization_id text NOT NULL,          -- '_' for none
    entity       text NOT NULL CHECK (entity IN ('strategy', 'project', 'container', 'organization')),
    entity_id    text NOT NULL,
    state        text NOT NULL CHECK (state IN ('healthy', 'degraded', 'failing', 'silent')),
    reason       text NOT NULL,
    figures      jsonb NOT NULL,
    since        timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    announced    boolean NOT NULL DEFAULT false, -- whether its subject was told
    PRIMARY KEY (organization_id, entity, entity_id)
);
CREATE INDEX health_unannounced ON watchbook.health (updated_at) WHERE NOT announced;

-- Groups that a rule for first-seen values knows already.
CREATE TABLE watchbook.known_groups (
    rule         text NOT NULL,
    group_id     uuid NOT NULL,
    labels       jsonb NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    PRIMARY KEY (rule, group_id)
);

-- The rules in force, and what was wrong with a file that was to replace them. One row.
CREATE TABLE watchbook.alert_settings (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    rules        jsonb NOT NULL,
    fingerprint  text NOT NULL,
    loaded_at    timestamptz NOT NULL,
    loaded_by    text NOT NULL,
    problem      text,
    problem_at   timestamptz
);
