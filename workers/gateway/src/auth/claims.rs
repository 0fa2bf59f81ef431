//! The claims of a token (RFC 7519) whose signature has been verified.

use std::collections::BTreeSet;
use std::sync::Arc;

use records::subject;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Caller, Organizations, Role};

/// The latest NumericDate: the end of the year 9999, as in RFC 3339. Larger numbers are mistakes, such as milliseconds.
pub const LATEST_DATE: u64 = 253_402_300_799;

/// Maximum length of a subject. It becomes an id in audit records, which have this limit.
const SUBJECT_BYTES: usize = 256;
/// Maximum number of organizations in a token. More do not fit into a header.
const ORGANIZATIONS: usize = 1_000;
/// Stands for every organization in `orgs`.
const ALL: &str = "*";

/// The values against which claims are checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'e> {
    pub(super) issuer: &'e str,
    pub(super) audience: &'e str,
    /// The current time, in seconds since 1970.
    pub(super) now: u64,
    /// Allowed clock skew of the issuer, in seconds.
    pub(super) leeway: u64,
}

/// The claims of a token. A null claim is absent. If a name occurs twice, the last one counts.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Parses the claims.
    ///
    /// # Errors
    /// A reason that does not quote the token. The same applies to the other functions.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(payload).map(Self).map_err(|_| "the token's claims are not a JSON object".to_owned())
    }

    /// Checks issuer, audience and validity period. Returns when the token expires, in whole seconds since 1970.
    pub(super) fn check(&self, expected: &Expected<'_>) -> Result<u64, String> {
        // Round fractions so that the validity period gets shorter.
        let expires_at = self.date("exp")?.ok_or_else(|| missing("exp"))?.floor() as u64;
        let not_before = self.date("nbf")?.map(|seconds| seconds.ceil() as u64);
        self.date("iat")?;
        if self.text("iss")? != expected.issuer {
            return Err("the token has another issuer".to_owned());
        }
        if !self.texts("aud")?.ok_or_else(|| missing("aud"))?.contains(&expected.audience) {
            return Err("the token has another audience".to_owned());
        }
        if expires_at.saturating_add(expected.leeway) < expected.now {
            return Err("the token has expired".to_owned());
        }
        if not_before.is_some_and(|not_before| not_before > expected.now.saturating_add(expected.leeway)) {
            return Err("the token is not valid yet".to_owned());
        }
        Ok(expires_at)
    }

    /// Returns the caller.
    pub(super) fn caller(&self) -> Result<Caller, String> {
        let subject = self.text("sub")?;
        if subject.is_empty() || subject.len() > SUBJECT_BYTES || subject.contains('\0') {
            return Err("`sub` must have 1 to 256 bytes".to_owned());
        }
        let role = self.get("role").ok_or_else(|| missing("role"))?;
        let role = Role::deserialize(role)
            .map_err(|_| format!("`role` of the token must be one of {}", Role::ALL.map(Role::name).join(", ")))?;
        let organizations = organizations(&self.texts("orgs")?.unwrap_or_default())?;
        Ok(Caller { subject: subject.into(), role, organizations })
    }

    fn get(&self, claim: &str) -> Option<&Value> {
        self.0.get(claim).filter(|value| !value.is_null())
    }

    fn text(&self, claim: &str) -> Result<&str, String> {
        let value = self.get(claim).ok_or_else(|| missing(claim))?;
        value.as_str().ok_or_else(|| format!("`{claim}` of the token must be a string"))
    }

    /// Returns a list of strings. A single string is a list of one.
    fn texts(&self, claim: &str) -> Result<Option<Vec<&str>>, String> {
        let texts = match self.get(claim) {
            None => return Ok(None),
            Some(Value::String(text)) => Some(vec![text.as_str()]),
            Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        texts.map(Some).ok_or_else(|| format!("`{claim}` of the token must be a string, or a list of strings"))
    }

    /// Returns a NumericDate (RFC 7519, section 2): seconds since 1970, possibly with a fraction.
    fn date(&self, claim: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(claim) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST_DATE as f64).contains(seconds));
        seconds.map(Some).ok_or_else(|| {
            format!("`{claim}` of the token must be a number of seconds since 1970, before the year 10000")
        })
    }
}

fn missing(claim: &str) -> String {
    format!("the token has no `{claim}`")
}

fn organizations(names: &[&str]) -> Result<Organizations, String> {
    if names.len() > ORGANIZATIONS {
        return Err("`orgs` names too many organizations".to_owned());
    }
    if names.contains(&ALL) {
        return Ok(Organizations::All);
    }
    if !names.iter().all(|name| subject::is_organization(name)) {
        return Err("`orgs` contains an invalid organization".to_owned());
    }
    // Only `*` covers records without an organization: `_` does not name an organization.
    let named = names.iter().filter(|name| **name != subject::NO_ORGANIZATION);
    Ok(Organizations::Set(Arc::new(named.map(|name| (*name).to_owned()).collect::<BTreeSet<_>>())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const EXPECTED: Expected<'static> = Expected { issuer: "i", audience: "a", now: NOW, leeway: 30 };

    fn claims(more: &str) -> Claims {
        let text = format!(r#"{{"iss":"i","aud":"a","exp":{NOW},"sub":"s","role":"viewer"{more}}}"#);
        Claims::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn dates_are_numbers_of_seconds() {
        for (more, expires_at) in [
            ("".to_owned(), NOW),
            (format!(r#","exp":{}.75"#, NOW), NOW),
            (format!(r#","exp":{}e-1"#, NOW * 10 + 5), NOW),
            (format!(r#","exp":{}"#, NOW - 30), NOW - 30),
            (format!(r#","exp":{LATEST_DATE}"#), LATEST_DATE),
            (format!(r#","nbf":{}.5,"iat":{NOW}.123456"#, NOW + 29), NOW),
            (r#","nbf":null,"iat":null"#.to_owned(), NOW),
            (r#","nbf":0,"iat":0.0"#.to_owned(), NOW),
        ] {
            assert_eq!(claims(&more).check(&EXPECTED), Ok(expires_at), "{more}");
        }
        for (more, said) in [
            (format!(r#","exp":{}"#, NOW - 31), "expired"),
            (format!(r#","exp":{}.999"#, NOW - 31), "expired"),
            (format!(r#","nbf":{}.001"#, NOW + 30), "not valid yet"),
            (r#","exp":null"#.to_owned(), "no `exp`"),
            (r#","iss":"other""#.to_owned(), "issuer"),
            (r#","iss":["i"]"#.to_owned(), "`iss`"),
            (r#","aud":["b","c"]"#.to_owned(), "audience"),
            (r#","aud":[1]"#.to_owned(), "`aud`"),
        ] {
            let refused = claims(&more).check(&EXPECTED).unwrap_err();
            assert!(refused.contains(said), "{more}: {refused}");
        }
        // Not a number, or out of range.
        let wrong = [
            "-1",
            "-0.5",
            "1e300",
            "253402300799.5",
            "1800000000000",
            "\"1800000000\"",
            "\"NaN\"",
            "true",
            "[1]",
            "{}",
        ];
        for (claim, wrong) in ["exp", "nbf", "iat"].into_iter().flat_map(|claim| wrong.map(|wrong| (claim, wrong))) {
            let refused = claims(&format!(r#","{claim}":{wrong}"#)).check(&EXPECTED).unwrap_err();
            assert!(refused.contains(&format!("`{claim}`")) && refused.contains("seconds since 1970"), "{refused}");
        }
        for unreadable in [r#"{"exp":NaN}"#, r#"{"exp":1e400}"#, r#"{"exp":Infinity}"#, "[]", "", "7"] {
            assert!(Claims::parse(unreadable.as_bytes()).is_err(), "{unreadable}");
        }
    }

    #[test]
    fn organizations_are_a_list_or_one() {
        let of = |orgs: Value| claims(&format!(r#","orgs":{orgs}"#)).caller().map(|caller| caller.organizations);
        let set = |names: &[&str]| {
            Ok(Organizations::Set(Arc::new(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>())))
        };
        for (orgs, named) in [
            (json!("acme"), set(&["acme"])),
            (json!(["acme"]), set(&["acme"])),
            (json!("*"), Ok(Organizations::All)),
            (json!(["acme", "*"]), Ok(Organizations::All)),
            (json!([]), set(&[])),
            (json!(null), set(&[])),
            (json!("_"), set(&[])),
        ] {
            assert_eq!(of(orgs.clone()), named, "{orgs}");
        }
        for wrong in [json!(""), json!("acme,umbra"), json!("acme umbra"), json!(7), json!({}), json!(["a", 1])] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
