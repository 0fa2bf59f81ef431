CREATE TABLE watchbook.container_logs (
    container_id    text NOT NULL,
    stream          text NOT NULL,
    message         text NOT NULL,
    id              uuid NOT NULL,
    organization_id text,
    created_at      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    source          text,
    attributes      jsonb NOT NULL,
    PRIMARY KEY (created_at, id),
    CONSTRAINT stream_known CHECK (stream IN ('stdout', 'stderr'))
) PARTITION BY RANGE (created_at);

-- GET /api/logs by container_id; stream and text narrow it.
CREATE INDEX container_logs_container ON watchbook.container_logs (container_id, created_at);
