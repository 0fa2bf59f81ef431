-- What is removed and why, what must stay, and what Watchbook has to say of that itself.

-- What a hold names stays, however old it is, until the hold is released or over.
CREATE TABLE watchbook.holds (
    id              uuid PRIMARY KEY,
    organization_id text,                   -- NULL for every organization, '_' for records without one
    kind            text,                   -- NULL for every kind
    starts_at       timestamptz,            -- of the records, the first one held; NULL from the beginning
    ends_at         timestamptz,            -- the first one that is not held any more; NULL for ever
    reason          text NOT NULL,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz,            -- over by itself then
    released_at     timestamptz,
    released_by     text,
    CONSTRAINT hold_ends_after_its_start CHECK (ends_at > starts_at)
);
CREATE INDEX holds_open ON watchbook.holds (created_at) WHERE released_at IS NULL;

-- One row a run, written before it begins: what a crash leaves behind is a run that has no end.
CREATE TABLE watchbook.retention_runs (
    id            uuid PRIMARY KEY,
    cause         text NOT NULL CHECK (cause IN ('schedule', 'missed', 'retry', 'resume', 'volume', 'command')),
    -- The time of the schedule that the run answers: each is answered once, however many processes hear it.
    scheduled_for timestamptz,
    actor_id      text NOT NULL,
    process       text NOT NULL,
    outcome       text NOT NULL CHECK (outcome IN ('running', 'done', 'failed', 'interrupted')),
    problem       text,
    planned       jsonb NOT NULL,           -- the plan that it executes
    started_at    timestamptz NOT NULL,
    ended_at      timestamptz
);
CREATE UNIQUE INDEX retention_runs_scheduled ON watchbook.retention_runs (scheduled_for) WHERE scheduled_for IS NOT NULL;
CREATE INDEX retention_runs_started ON watchbook.retention_runs (started_at);
CREATE INDEX retention_runs_running ON watchbook.retention_runs (started_at) WHERE outcome = 'running';

-- What a run did, each in the transaction that did it: so this is what is gone, whatever died meanwhile.
CREATE TABLE watchbook.retention_actions (
    run_id    uuid NOT NULL,
    position  integer NOT NULL,             -- of the item in the run's plan
    kind      text NOT NULL,
    day       date,
    action    text NOT NULL,
    rows      bigint NOT NULL,
    bytes     bigint NOT NULL,
    kept_rows bigint NOT NULL,
    archived  jsonb,                        -- the manifest of the copy that was verified before
    took_ms   bigint NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (run_id, position)
);

-- Erasures of users and strategies: asked for, under way, waiting for a hold, done.
CREATE TABLE watchbook.erasures (
    id              uuid PRIMARY KEY,
    entity          text NOT NULL CHECK (entity IN ('user', 'strategy')),
    entity_id       text NOT NULL,
    organization_id text,                   -- NULL for every organization
    -- Records up to then: who comes back under the same id is somebody new.
    up_to           timestamptz NOT NULL,
    deleted_at      timestamptz,            -- created_at of the deletion in the directory; NULL where somebody asked
    requested_by    text NOT NULL,          -- 'system' where the directory said so
    requested_at    timestamptz NOT NULL,
    state           text NOT NULL CHECK (state IN ('pending', 'held', 'done')),
    executions      bigint NOT NULL DEFAULT 0,  -- removed
    blanked         bigint NOT NULL DEFAULT 0,  -- events and errors whose personal fields are gone
    ended_at        timestamptz
);
CREATE INDEX erasures_open ON watchbook.erasures (requested_at) WHERE state <> 'done';
CREATE INDEX erasures_requested ON watchbook.erasures (requested_at);
-- Those of late, for executions that come late.
CREATE INDEX erasures_ended ON watchbook.erasures (ended_at) WHERE state = 'done';

-- One deletion asks once, however often it comes.
CREATE UNIQUE INDEX erasures_asked ON watchbook.erasures (entity, entity_id, organization_id, deleted_at)
    NULLS NOT DISTINCT WHERE deleted_at IS NOT NULL;

-- An organization's directory speaks for that organization alone; one without an organization, which only the platform
-- itself may publish to, speaks for all.
CREATE FUNCTION watchbook.ask_for_erasure(
    entity text, entity_id text, organization_id text, created_at timestamptz, received_at timestamptz
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO watchbook.erasures
           (id, entity, entity_id, organization_id, up_to, deleted_at, requested_by, requested_at, state)
    VALUES (gen_random_uuid(), entity, entity_id, organization_id, greatest(created_at, received_at), created_at, 'system', now(), 'pending')
        ON CONFLICT DO NOTHING;
END;

-- A deletion in the directory asks for an erasure in the transaction that stores it. Of several snapshots of an entity
-- in a batch only the newest is stored: what the others ask for, whoever merges them asks for as well.
CREATE FUNCTION watchbook.deletion_asks_for_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM watchbook.ask_for_erasure(NEW.entity, NEW.entity_id, NEW.organization_id, NEW.created_at, NEW.received_at);
    RETURN NULL;
END $$;
CREATE TRIGGER deletion_asks_for_erasure AFTER INSERT OR UPDATE ON watchbook.entities
    FOR EACH ROW WHEN (NEW.deleted AND NEW.entity IN ('user', 'strategy'))
    EXECUTE FUNCTION watchbook.deletion_asks_for_erasure();

-- Records that Watchbook itself has to publish, written with what they tell of and removed once the stream has them.
-- Published twice they are stored once, because id and time are in them.
CREATE TABLE watchbook.own_records (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL,
    organization_id text,                   -- NULL for none
    record          jsonb NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE INDEX own_records_created ON watchbook.own_records (created_at);
