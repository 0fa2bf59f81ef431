CREATE TABLE watchbook.sandbox_execution_logs (
    user_id           text NOT NULL,
    strategy_id       text NOT NULL,
    execution_type    text NOT NULL,
    success           boolean NOT NULL,
    execution_time_ms bigint NOT NULL,
    memory_used_mb    bigint,
    cpu_usage_percent double precision,
    timed_out         boolean NOT NULL,
    error_count       bigint NOT NULL,
    warning_count     bigint NOT NULL,
    classes_found     text[],
    metadata          jsonb,
    id                uuid NOT NULL,
    organization_id   text,
    created_at        timestamptz NOT NULL,
    received_at       timestamptz NOT NULL,
    source            text,
    attributes        jsonb NOT NULL,
    PRIMARY KEY (created_at, id),
    CONSTRAINT execution_type_known CHECK (execution_type IN ('VALIDATION', 'TERMINAL'))
) PARTITION BY RANGE (created_at);

-- GET /api/executions by user_id and strategy_id, their statistics, and a strategy's last 100.
CREATE INDEX sandbox_execution_logs_user ON watchbook.sandbox_execution_logs (user_id, created_at);
CREATE INDEX sandbox_execution_logs_strategy ON watchbook.sandbox_execution_logs (strategy_id, created_at);
-- The failures of a time range, which are few.
CREATE INDEX sandbox_execution_logs_failures ON watchbook.sandbox_execution_logs (created_at) WHERE NOT success;
