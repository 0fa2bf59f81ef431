//! Finds the token in a request.

use axum::http::{HeaderMap, header};

use super::session;

/// The token of a request. A browser also sends a cookie with requests of other sites' pages (`by_cookie`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials<'r> {
    pub(super) token: &'r str,
    pub(super) by_cookie: bool,
}

/// The error for an invalid `Authorization` header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Returns the token in `Authorization`, or else in the cookie. The header takes precedence, because it is set
/// explicitly.
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

/// Returns the token after `Bearer`, which is case-insensitive.
pub(super) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
