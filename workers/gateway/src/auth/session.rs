//! The session cookie of browsers: contains the token, and scripts cannot read it.
//!
//! Browsers also send cookies with requests of other sites' pages (CSRF). A state-changing request must therefore prove
//! that a page of Watchbook sent it, with a header that other pages cannot set without CORS permission. If the browser
//! reports the origin of a request (`Origin`, `Sec-Fetch-Site`), it must be Watchbook's own.

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use crate::problem::Problem;

/// The name of the cookie with TLS. The prefix `__Host-` makes browsers require `Secure`.
const SECURE_COOKIE: &str = "__Host-watchbook_session";
/// The name of the cookie on loopback, without TLS.
const LOOPBACK_COOKIE: &str = "watchbook_session";
/// The header that pages of Watchbook send, with any value.
pub(crate) const CSRF_HEADER: HeaderName = HeaderName::from_static("x-watchbook-csrf");
/// The header in which browsers report the relation of a request's origin to its target.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The CSRF checks of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CsrfCheck {
    /// The CSRF header is present, and the origin is not foreign.
    Header,
    /// The origin is not foreign. For requests with a body that forms cannot send.
    Origin,
}

/// Returns the token in the session cookie.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Returns the `Set-Cookie` value for a token that expires in `seconds`.
pub(crate) fn cookie(headers: &HeaderMap, token: &str, seconds: u64) -> String {
    let secure = if is_loopback(headers) { "" } else { "; Secure" };
    format!("{}={token}; Path=/; HttpOnly; SameSite=Strict{secure}; Max-Age={seconds}", cookie_name(headers))
}

/// Returns the `Set-Cookie` value that removes the cookie.
pub(crate) fn no_cookie(headers: &HeaderMap) -> String {
    cookie(headers, "", 0)
}

/// Rejects requests of other sites' pages with 403.
pub(crate) fn refuse_foreign_pages(headers: &HeaderMap, check: CsrfCheck) -> Result<(), Problem> {
    let refuse = |detail: &'static str| {
        Err(Problem::new(StatusCode::FORBIDDEN, "foreign-page", "Request from a foreign page", detail))
    };
    if check == CsrfCheck::Header && headers.get(&CSRF_HEADER).is_none_or(|value| value.is_empty()) {
        return refuse("a state-changing request with a cookie requires the header X-Watchbook-CSRF");
    }
    if headers.get(&FETCH_SITE).is_some_and(|site| site != "same-origin") {
        return refuse("the browser reports that another site sent this");
    }
    if headers.get(header::ORIGIN).is_some_and(|origin| !is_own(origin.to_str().unwrap_or_default(), headers)) {
        return refuse("the browser reports that a page of another origin sent this");
    }
    Ok(())
}

/// Returns whether an origin is the host of the request.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    matches!((host, origin), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
}

fn cookie_name(headers: &HeaderMap) -> &'static str {
    if is_loopback(headers) { LOOPBACK_COOKIE } else { SECURE_COOKIE }
}

/// Returns whether the header `Host` names this machine itself. A client that lies affects only its own cookie.
fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Uri>().ok());
    let host = host.as_ref().and_then(Uri::host).unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_cookie_travels_encrypted_but_on_loopback() {
        for (host, secure) in [
            ("127.0.0.1:8470", false),
            ("localhost", false),
            ("[::1]:8470", false),
            ("watchbook.example.com", true),
            ("", true),
        ] {
            let headers = headers(&[("host", host)]);
            let cookie = cookie(&headers, "t", 9);
            assert_eq!(cookie.contains("; Secure"), secure, "{host}: {cookie}");
            assert_eq!(cookie.starts_with("__Host-"), secure);
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Max-Age=9"));
        }
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let found = |host, cookies| token(&headers(&[("host", host), ("cookie", cookies)])).map(str::to_owned);
        assert_eq!(found("localhost", "a=b; watchbook_session=x.y.z"), Some("x.y.z".to_owned()));
        assert_eq!(found("example.com", "watchbook_session=planted"), None);
        assert_eq!(found("example.com", "__Host-watchbook_session=t"), Some("t".to_owned()));
        assert_eq!(found("localhost", "watchbook_session="), None);
    }

    #[test]
    fn foreign_pages_are_refused() {
        let allowed = |check, pairs: &[(&'static str, &str)]| {
            let own = [("host", "w.example.com")];
            refuse_foreign_pages(&headers(&[own.as_slice(), pairs].concat()), check).is_ok()
        };
        let csrf = ("x-watchbook-csrf", "1");
        assert!(!allowed(CsrfCheck::Header, &[]));
        assert!(allowed(CsrfCheck::Origin, &[]));
        assert!(allowed(CsrfCheck::Header, &[csrf]));
        assert!(allowed(
            CsrfCheck::Header,
            &[csrf, ("origin", "https://w.example.com"), ("sec-fetch-site", "same-origin")]
        ));
        for foreign in [
            ("origin", "https://evil.example.com"),
            ("origin", "https://w.example.com.evil.com"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(!allowed(CsrfCheck::Header, &[csrf, foreign]), "{foreign:?}");
            assert!(!allowed(CsrfCheck::Origin, &[foreign]), "{foreign:?}");
        }
    }
}
