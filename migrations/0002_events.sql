CREATE TABLE watchbook.event_logs (
    event_type      text NOT NULL,
    payload         jsonb NOT NULL,
    project_id      text,
    run_id          text,
    user_id         text,
    actor_type      text NOT NULL,
    actor_id        text,
    id              uuid NOT NULL,
    organization_id text,
    created_at      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    source          text,
    attributes      jsonb NOT NULL,
    PRIMARY KEY (created_at, id),
    CONSTRAINT actor_type_known CHECK (actor_type IN ('user', 'system', 'api_key'))
) PARTITION BY RANGE (created_at);

-- GET /api/events by run_id, project_id, user_id, event_type; partial, because an index entry that no
-- question can find is a cost without a use.
CREATE INDEX event_logs_run ON watchbook.event_logs (run_id, created_at) WHERE run_id IS NOT NULL;
CREATE INDEX event_logs_project ON watchbook.event_logs (project_id, created_at) WHERE project_id IS NOT NULL;
CREATE INDEX event_logs_user ON watchbook.event_logs (user_id, created_at) WHERE user_id IS NOT NULL;
CREATE INDEX event_logs_type ON watchbook.event_logs (event_type, created_at);
