//! The metrics of the gateway: names and descriptions.
//!
//! Labels are bounded: `route` is a route's template, or `other` if no route matched; an unknown method is `other`.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const REQUESTS: &str = "watchbook_http_requests_total";
pub(crate) const SECONDS: &str = "watchbook_http_request_seconds";
pub(crate) const IN_FLIGHT: &str = "watchbook_http_requests_in_flight";
pub(crate) const CONNECTIONS: &str = "watchbook_http_connections";
pub(crate) const PUBLISHED: &str = "watchbook_http_published_records_total";
pub(crate) const KEY_FETCHES: &str = "watchbook_http_key_fetches_total";

pub(crate) const LIVE_STREAMS: &str = "watchbook_http_live_streams";
pub(crate) const LIVE_LOST: &str = "watchbook_http_live_lost_total";

/// Registers the descriptions of the gateway's metrics with the recorder of this process. Call it once, before the
/// gateway starts.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests answered, by method, route and status");
    describe_histogram!(SECONDS, Unit::Seconds, "From the head of a request to the head of its response, by route");
    describe_gauge!(IN_FLIGHT, "Requests whose response has not begun");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(PUBLISHED, "Records that were posted and acknowledged by JetStream, by kind");
    describe_gauge!(LIVE_STREAMS, "Open live streams");
    describe_counter!(LIVE_LOST, "Events dropped from live streams because the reader was slow, by kind");
    describe_counter!(KEY_FETCHES, "Fetches of the issuer's keys, by outcome: fetched or failed");
}
