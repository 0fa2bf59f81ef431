//! The cookie of browsers: the token itself, where no script can read it.
//!
//! A browser sends it along whoever asks it to, so a request that changes anything has to show that a page of ours
//! sent it: a header that a foreign page cannot set without our consent, and where the browser says from where the
//! request comes, the right place.

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use crate::problem::Problem;

/// The cookie where it may only travel encrypted; the prefix makes browsers hold us to that.
const SECURE_COOKIE: &str = "__Host-watchbook_session";
/// The cookie on loopback, where there is no TLS.
const LOOPBACK_COOKIE: &str = "watchbook_session";
/// The header with which a page of ours shows that it is one. Any value will do.
pub(crate) const CSRF_HEADER: HeaderName = HeaderName::from_static("x-watchbook-csrf");
/// What a browser says about where a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CsrfCheck {
    /// The header, and no foreign origin.
    Header,
    /// No foreign origin: for a request whose body no form can send.
    Origin,
}

/// The token in a request's cookie.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// A cookie that holds a token until it expires.
pub(crate) fn cookie(headers: &HeaderMap, token: &str, seconds: u64) -> String {
    let secure = if is_loopback(headers) { "" } else { "; Secure" };
    format!("{}={token}; Path=/; HttpOnly; SameSite=Strict{secure}; Max-Age={seconds}", cookie_name(headers))
}

/// A cookie that ends the session.
pub(crate) fn no_cookie(headers: &HeaderMap) -> String {
    cookie(headers, "", 0)
}

/// Refuses what a page of somebody else made the browser send.
pub(crate) fn refuse_foreign_pages(headers: &HeaderMap, check: CsrfCheck) -> Result<(), Problem> {
    let refuse = |detail: &'static str| {
        Err(Problem::new(StatusCode::FORBIDDEN, "foreign-page", "Not from a page of Watchbook", detail))
    };
    if check == CsrfCheck::Header && headers.get(&CSRF_HEADER).is_none_or(|value| value.is_empty()) {
        return refuse("a request that changes something and comes with a cookie needs the header X-Watchbook-CSRF");
    }
    if headers.get(&FETCH_SITE).is_some_and(|site| site != "same-origin") {
        return refuse("the browser says that another site sent this");
    }
    if headers.get(header::ORIGIN).is_some_and(|origin| !is_own(origin.to_str().unwrap_or_default(), headers)) {
        return refuse("the browser says that a page of another origin sent this");
    }
    Ok(())
}

/// Whether an origin is the host that was asked.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    matches!((host, origin), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
}

fn cookie_name(headers: &HeaderMap) -> &'static str {
    if is_loopback(headers) { LOOPBACK_COOKIE } else { SECURE_COOKIE }
}

/// Whether the browser came by a name of this machine itself, as it says: who lies here harms only their own cookie.
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
