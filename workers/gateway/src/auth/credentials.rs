//! Where in a request a token stands.

use axum::http::{HeaderMap, header};

use super::session;

/// A request's token, and whether its browser sent it without being asked to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials<'r> {
    pub(super) token: &'r str,
    pub(super) by_cookie: bool,
}

/// What a header says that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The header `Authorization` goes before the cookie: who sets it means it.
pub(super) fn find(headers: &HeaderMap) -> Result<Option<Credentials<'_>>, Unreadable> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(value) = values.next() {
        let token = value.to_str().ok().and_then(bearer).ok_or(Unreadable)?;
        return if values.next().is_some() {
            Err(Unreadable)
        } else {
            Ok(Some(Credentials { token, by_cookie: false }))
        };
    }
    Ok(session::token(headers).map(|token| Credentials { token, by_cookie: true }))
}

/// The token behind `Bearer`, which is written in any case.
pub(super) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
