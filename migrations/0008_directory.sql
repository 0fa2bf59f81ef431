-- What ids mean: the newest snapshot of each entity. Records never wait for their entity, so nothing
-- references this table.
CREATE TABLE watchbook.entities (
    entity          text NOT NULL,
    entity_id       text NOT NULL,
    name            text,
    email           text,
    parent_id       text,
    deleted         boolean NOT NULL,
    id              uuid NOT NULL,
    organization_id text,
    created_at      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    source          text,
    attributes      jsonb NOT NULL,
    CONSTRAINT entities_key UNIQUE NULLS NOT DISTINCT (organization_id, entity, entity_id),
    CONSTRAINT entity_known CHECK (entity IN ('user', 'organization', 'project', 'run', 'strategy', 'container'))
);

-- Names and addresses for listings.
CREATE INDEX entities_entity ON watchbook.entities (entity, entity_id);
