//! With what somebody asks: from where, and with which program. For audit records.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, header};

/// The other end of a request's connection. Headers in which a proxy says for whom it asks are not believed: anybody
/// can write them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// From where a request comes, where it came by a connection.
    pub(crate) fn address(extensions: &Extensions) -> Option<IpAddr> {
        // One that listens on IPv6 sees the addresses of IPv4 in there.
        extensions.get::<Self>().map(|Self(address)| address.to_canonical())
    }
}

/// With what somebody asks.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// From where, where the request came by a connection.
    pub(crate) ip_address: Option<IpAddr>,
    /// What the program calls itself.
    pub(crate) user_agent: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let ip_address = Peer::address(&parts.extensions);
        let user_agent = parts.headers.get(header::USER_AGENT);
        let user_agent = user_agent.map(|program| String::from_utf8_lossy(program.as_bytes()).into_owned());
        Ok(Self { ip_address, user_agent })
    }
}
