//! What a service links to publish records: typed, acknowledged, buffered; and a tracing layer.
