//! The metrics of the gateway: names, and what they mean to whoever scrapes them.
//!
//! Labels are bounded: a route is its template, `other` where no route was met; a method that has no meaning is `other`.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const REQUESTS: &str = "watchbook_http_requests_total";
pub(crate) const SECONDS: &str = "watchbook_http_request_seconds";
pub(crate) const IN_FLIGHT: &str = "watchbook_http_requests_in_flight";
pub(crate) const CONNECTIONS: &str = "watchbook_http_connections";
pub(crate) const PUBLISHED: &str = "watchbook_http_published_records_total";
pub(crate) const KEY_FETCHES: &str = "watchbook_http_key_fetches_total";

pub(crate) const LIVE_STREAMS: &str = "watchbook_http_live_streams";
pub(crate) const LIVE_LOST: &str = "watchbook_http_live_lost_total";

/// Tells the recorder of this process what the gateway's metrics mean. Once, before it starts.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests that were answered, by method, route and status");
    describe_histogram!(SECONDS, Unit::Seconds, "From a request's head to the head of its answer, by route");
    describe_gauge!(IN_FLIGHT, "Requests whose answer has not begun yet");
    describe_gauge!(CONNECTIONS, "Connections that are open");
    describe_counter!(PUBLISHED, "Records that were posted and that JetStream has acknowledged, by kind");
    describe_gauge!(LIVE_STREAMS, "Live answers that are open");
    describe_counter!(LIVE_LOST, "Events that a live answer left out because its reader was slow, by kind");
    describe_counter!(KEY_FETCHES, "Fetches of the issuer's keys, by outcome: fetched or failed");
}
