//! What every process needs: configuration, backoff, health, probes, telemetry.
