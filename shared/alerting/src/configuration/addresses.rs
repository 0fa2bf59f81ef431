//! Checks the syntax of addresses. Whether an address is reachable shows on delivery.

use records::Kind;

/// Checks the form of a URL: a known scheme, a host, a numeric port, and no characters that have to be escaped.
pub(super) fn check_url(url: &str, schemes: &[&str]) -> Result<(), String> {
    let expected = || {
        let schemes: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        format!("expected a URL that begins with {}", schemes.join(" or "))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
    if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(expected());
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`')) {
        return Err("contains a space or another character that has to be escaped in a URL".to_owned());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[') {
        Some(v6) => {
            let (address, port) = v6.split_once(']').ok_or_else(|| "the host's bracket is not closed".to_owned())?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("`{address}` is not an IPv6 address"));
            }
            (address, port.strip_prefix(':').or_else(|| (!port.is_empty()).then_some("?")))
        }
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(['{', '}', '|', '%', ',']) {
        return Err("has no host".to_owned());
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port is not a number between 0 and 65535".to_owned());
    }
    Ok(())
}

/// Checks whether text has the form of a mail address, with or without a display name: `Ops <ops@example.com>`.
pub(super) fn is_mail_address(text: &str) -> bool {
    if text.chars().any(char::is_control) {
        return false;
    }
    let address = match text.trim().strip_suffix('>') {
        Some(named) => match named.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => text.trim(),
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte >= 0x80)
    };
    !local.is_empty()
        && local.len() <= 64
        && !local
            .contains(|c: char| c.is_whitespace() || matches!(c, '@' | '<' | '>' | ',' | ';' | ':' | '"' | '(' | ')'))
        && domain.split('.').all(is_label)
}

/// Checks whether alerts may be published on a subject.
pub(super) fn check_subject(subject: &str, prefix: &str) -> Result<(), String> {
    let is_token = |token: &str| {
        !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
    };
    if !subject.split('.').all(is_token) || subject.starts_with('$') {
        return Err(format!("`{subject}` is no subject to publish on: tokens separated by dots, without wildcards"));
    }
    let rest = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
    let kind = rest.and_then(|rest| rest.split('.').next()).and_then(|kind| kind.parse::<Kind>().ok());
    match kind {
        Some(kind) => Err(format!("`{subject}` belongs to the records of {kind}, so alerts would be read as records")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        for (url, good) in [
            ("https://alerts.example/hook", true),
            ("http://127.0.0.1:9093", true),
            ("HTTP://[::1]:80/x?y=z#f", true),
            ("https://me:secret@host/", true),
            ("https://host/a%20b", true),
            ("ftp://host", false),
            ("alerts.example/hook", false),
            ("https://", false),
            ("https:///hook", false),
            ("https://:80/", false),
            ("https://host:http/", false),
            ("https://host:70000/", false),
            ("https://ho st/", false),
            ("https://[::1/", false),
            ("https://[x]/", false),
            ("https://[::1]x/", false),
            ("https://${HOST}/", false),
        ] {
            assert_eq!(check_url(url, &["http", "https"]).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn mail_addresses_have_two_sides() {
        for (text, good) in [
            ("ops@example.com", true),
            ("root@localhost", true),
            ("Ops on call <ops+night@example.com>", true),
            ("ops", false),
            ("ops@", false),
            ("@example.com", false),
            ("a@b@c", false),
            ("ops@exa mple.com", false),
            ("ops@example..com", false),
            ("Ops <ops@example.com", false),
            ("a@b.c, d@e.f", false),
            ("ops@example.com\nBcc: x@y.z", false),
        ] {
            assert_eq!(is_mail_address(text), good, "{text}");
        }
    }

    #[test]
    fn alerts_never_become_records() {
        for (subject, good) in [
            ("ops.alerts", true),
            ("watchbook.alerts.all", true),
            ("watchbook.eventsx", true),
            ("watchbook.events.acme.x", false),
            ("watchbook.executions", false),
            ("ops.*", false),
            ("ops.>", false),
            ("ops..x", false),
            ("", false),
            ("a b", false),
            ("$JS.API.x", false),
        ] {
            assert_eq!(check_subject(subject, "watchbook").is_ok(), good, "{subject}");
        }
    }
}
