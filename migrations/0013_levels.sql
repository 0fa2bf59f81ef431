-- What is left of what has gone: hours.

-- A container's samples of an hour, once their day has gone. Cut by month, because whole months go.
-- Sums and not averages, so that rows can be merged. They are numeric: a sum of bigints passes bigint, one of
-- doubles can pass double and depends on the order in which it was added; a numeric does neither.
CREATE TABLE watchbook.container_metric_hours (
    container_id               text NOT NULL,
    hour                       timestamptz NOT NULL,
    organization_id            text,
    samples                    bigint NOT NULL,
    -- Samples that had a value, and the least, the sum and the greatest of these.
    cpu_usage_percent_samples  bigint NOT NULL,
    cpu_usage_percent_min      double precision,
    cpu_usage_percent_sum      numeric NOT NULL,
    cpu_usage_percent_max      double precision,
    memory_usage_bytes_samples bigint NOT NULL,
    memory_usage_bytes_min     bigint,
    memory_usage_bytes_sum     numeric NOT NULL,
    memory_usage_bytes_max     bigint,
    network_rx_bytes_samples   bigint NOT NULL,
    network_rx_bytes_min       bigint,
    network_rx_bytes_sum       numeric NOT NULL,
    network_rx_bytes_max       bigint,
    network_tx_bytes_samples   bigint NOT NULL,
    network_tx_bytes_min       bigint,
    network_tx_bytes_sum       numeric NOT NULL,
    network_tx_bytes_max       bigint,
    -- GET /api/metrics by container_id, as the samples have it.
    CONSTRAINT container_metric_hours_key UNIQUE NULLS NOT DISTINCT (container_id, hour, organization_id)
) PARTITION BY RANGE (hour);

-- The sums of outcome minutes that were thinned out. A minute is in one of the two tables; an hour can be in both,
-- while it is being thinned and when records came late. Readers sum over both.
CREATE TABLE watchbook.outcome_hours (
    kind            text NOT NULL,
    hour            timestamptz NOT NULL,
    organization_id text NOT NULL, -- '_' for none, as in subjects
    total           bigint NOT NULL,
    failed          bigint NOT NULL,
    PRIMARY KEY (kind, hour, organization_id)
);

-- Both levels: how many records of a kind happened from `at` on within `width`, and how many of them failed.
CREATE VIEW watchbook.outcomes AS
SELECT kind, minute AS at, interval '1 minute' AS width, organization_id,
       sum(total)::bigint AS total, sum(failed)::bigint AS failed
  FROM watchbook.outcome_minutes GROUP BY kind, minute, organization_id
 UNION ALL
SELECT kind, hour, interval '1 hour', organization_id, total, failed
  FROM watchbook.outcome_hours;
