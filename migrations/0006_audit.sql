-- Who did what to what. Kept for years, so cut by month.
CREATE TABLE control_plane.audit_logs (
    actor_id        text NOT NULL,
    actor_type      text NOT NULL,
    action          text NOT NULL,
    target_type     text NOT NULL,
    target_id       text NOT NULL,
    status          text NOT NULL,
    reason          text,
    error_details   text,
    metadata        jsonb NOT NULL,
    ip_address      inet,
    user_agent      text,
    id              uuid NOT NULL,
    organization_id text,
    created_at      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    source          text,
    attributes      jsonb NOT NULL,
    PRIMARY KEY (created_at, id),
    CONSTRAINT actor_type_known CHECK (actor_type IN ('user', 'system', 'api_key')),
    CONSTRAINT system_is_one_actor CHECK (actor_type <> 'system' OR actor_id = 'system'),
    CONSTRAINT status_known CHECK (status IN ('SUCCESS', 'FAILURE'))
) PARTITION BY RANGE (created_at);

-- GET /api/organizations/{org}/audit, and GET /api/audit by actor_id, target and action; the rest narrows one of these.
CREATE INDEX audit_logs_organization ON control_plane.audit_logs (organization_id, created_at);
CREATE INDEX audit_logs_actor ON control_plane.audit_logs (actor_id, created_at);
CREATE INDEX audit_logs_target ON control_plane.audit_logs (target_type, target_id, created_at);
CREATE INDEX audit_logs_action ON control_plane.audit_logs (action, created_at);
