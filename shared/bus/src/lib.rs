//! JetStream for consumers: connection, streams, ordered reading, trimming. The only crate that reads from NATS.
