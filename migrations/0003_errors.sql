CREATE TABLE watchbook.error_logs (
    trace_id        text NOT NULL,
    error_type      text NOT NULL,
    message         text NOT NULL,
    stack           text,
    detail          jsonb,
    project_id      text,
    run_id          text,
    endpoint        text,
    severity        text NOT NULL,
    id              uuid NOT NULL,
    organization_id text,
    created_at      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    source          text,
    attributes      jsonb NOT NULL,
    PRIMARY KEY (created_at, id),
    CONSTRAINT severity_known CHECK (severity IN ('warning', 'error', 'critical'))
) PARTITION BY RANGE (created_at);

-- GET /api/errors by trace_id, project_id, run_id, error_type; severity and endpoint narrow one of these.
CREATE INDEX error_logs_trace ON watchbook.error_logs (trace_id, created_at);
CREATE INDEX error_logs_project ON watchbook.error_logs (project_id, created_at) WHERE project_id IS NOT NULL;
CREATE INDEX error_logs_run ON watchbook.error_logs (run_id, created_at) WHERE run_id IS NOT NULL;
CREATE INDEX error_logs_type ON watchbook.error_logs (error_type, created_at);
