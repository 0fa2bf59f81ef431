//! The request context for audit events: the client's address and user agent.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, header};

/// The peer of a request's connection. Headers such as `X-Forwarded-For` are not trusted: any client can set them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// Returns the address of the peer; `None` for a request that did not come over a connection.
    pub(crate) fn address(extensions: &Extensions) -> Option<IpAddr> {
        // An IPv6 listener sees IPv4 addresses as mapped ones.
        extensions.get::<Self>().map(|Self(address)| address.to_canonical())
    }
}

/// The request context.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The client's address; `None` for a request that did not come over a connection.
    pub(crate) ip_address: Option<IpAddr>,
    /// The header `User-Agent`, with invalid UTF-8 replaced.
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
