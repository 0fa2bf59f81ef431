CREATE TABLE watchbook.container_metrics (
    container_id       text NOT NULL,
    cpu_usage_percent  double precision,
    memory_usage_bytes bigint,
    network_rx_bytes   bigint,
    network_tx_bytes   bigint,
    id                 uuid NOT NULL,
    organization_id    text,
    created_at         timestamptz NOT NULL,
    received_at        timestamptz NOT NULL,
    source             text,
    attributes         jsonb NOT NULL,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);

-- GET /api/metrics by container_id.
CREATE INDEX container_metrics_container ON watchbook.container_metrics (container_id, created_at);
