//! Cursors: signed positions in a list, opaque to callers.
//!
//! A cursor is `base64url(tag ‖ position)`. The tag is an HMAC-SHA-256 over the binding of the cursor (route, filters,
//! caller, and the caller's organizations) and the position. A cursor that was changed, forged, or taken from another
//! query or another caller is rejected. Positions are not encrypted: they contain only what the caller just received.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::auth::{Caller, Organizations};
use crate::problem::{Fault, Problem};

/// Length of the truncated tag. 128 bits cannot be guessed, and cursors stay short.
const TAG_BYTES: usize = 16;

/// Signs and opens cursors. All gateways of a database share the key.
#[derive(Clone)]
pub struct Cursors(Hmac<Sha256>);

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors")
    }
}

/// The query and the caller to which a cursor is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding(Vec<u8>);

impl Binding {
    /// Binds to a route's template, the filters of [`Parameters::filters`](crate::query::Parameters::filters), the
    /// caller's subject and the caller's organizations.
    pub fn new(route: &str, filters: &str, caller: &Caller) -> Self {
        let mut bound = Vec::new();
        let mut add = |part: &str| {
            // Prefix each part with its length, so that no two lists of parts have the same encoding.
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(part.as_bytes());
        };
        for part in [route, filters, &caller.subject] {
            add(part);
        }
        match &caller.organizations {
            Organizations::All => add("*"),
            Organizations::Set(own) => own.iter().for_each(|organization| add(organization)),
        }
        Self(bound)
    }
}

impl Cursors {
    /// Creates cursors with this key.
    ///
    /// # Errors
    /// None in practice: HMAC accepts keys of any length, but the library's function returns a `Result`.
    pub fn new(key: &[u8]) -> anyhow::Result<Self> {
        Hmac::new_from_slice(key).map(Self).map_err(|_| anyhow::anyhow!("the key of cursors is not valid"))
    }

    /// Returns a cursor that continues at a position.
    ///
    /// # Errors
    /// 500 if the position cannot be written as JSON, which would be a bug.
    pub fn sign<P: Serialize>(&self, binding: &Binding, position: &P) -> Result<String, Problem> {
        let position = serde_json::to_vec(position).map_err(|error| {
            tracing::error!(%error, "the position of a cursor cannot be encoded, which is a bug");
            Problem::internal()
        })?;
        let mut cursor = self.tag(binding, &position).to_vec();
        cursor.extend_from_slice(&position);
        Ok(URL_SAFE_NO_PAD.encode(cursor))
    }

    /// Returns the position of a cursor that was signed for this query and caller.
    ///
    /// # Errors
    /// 400 for any other cursor.
    pub fn open<P: DeserializeOwned>(&self, binding: &Binding, cursor: &str) -> Result<P, Problem> {
        self.position(binding, cursor).ok_or_else(|| {
            let reason =
                "was not returned by this query to this caller: the filters must be the same for all pages of a list";
            Problem::parameters(vec![Fault::of("cursor", reason)])
        })
    }

    fn position<P: DeserializeOwned>(&self, binding: &Binding, cursor: &str) -> Option<P> {
        let cursor = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (tag, position) = cursor.split_at_checked(TAG_BYTES)?;
        self.mac(binding, position).verify_truncated_left(tag).ok()?;
        serde_json::from_slice(position).ok()
    }

    fn tag(&self, binding: &Binding, position: &[u8]) -> [u8; TAG_BYTES] {
        let whole = self.mac(binding, position).finalize().into_bytes();
        std::array::from_fn(|at| whole[at])
    }

    fn mac(&self, binding: &Binding, position: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&(binding.0.len() as u64).to_be_bytes());
        mac.update(&binding.0);
        mac.update(position);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn caller(subject: &str, organizations: Option<&[&str]>) -> Caller {
        let own = |names: &[&str]| {
            Organizations::Set(std::sync::Arc::new(names.iter().map(|name| (*name).to_owned()).collect()))
        };
        Caller {
            subject: subject.into(),
            role: Role::Viewer,
            organizations: organizations.map_or(Organizations::All, own),
        }
    }

    #[test]
    fn a_cursor_is_good_for_one_question_of_one_caller() {
        let cursors = Cursors::new(b"key").unwrap();
        let binding = Binding::new("/api/audit", "6:action=1:x;", &caller("s", Some(&["acme"])));
        let cursor = cursors.sign(&binding, &(17, "id")).unwrap();
        assert_eq!(cursors.open::<(u32, String)>(&binding, &cursor).unwrap(), (17, "id".to_owned()));
        for foreign in [
            Binding::new("/api/events", "6:action=1:x;", &caller("s", Some(&["acme"]))),
            Binding::new("/api/audit", "6:action=1:y;", &caller("s", Some(&["acme"]))),
            Binding::new("/api/audit", "6:action=1:x;", &caller("t", Some(&["acme"]))),
            Binding::new("/api/audit", "6:action=1:x;", &caller("s", Some(&["acme", "umbra"]))),
            Binding::new("/api/audit", "6:action=1:x;", &caller("s", None)),
        ] {
            assert!(cursors.open::<(u32, String)>(&foreign, &cursor).is_err(), "{foreign:?}");
        }
        assert!(Cursors::new(b"another").unwrap().open::<(u32, String)>(&binding, &cursor).is_err());
    }

    #[test]
    fn a_forged_cursor_is_none() {
        let cursors = Cursors::new(b"key").unwrap();
        let binding = Binding::new("/", "", &caller("s", None));
        let cursor = cursors.sign(&binding, &17_u32).unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(cursors.open::<u32>(&binding, &URL_SAFE_NO_PAD.encode(&bytes)).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
        for forged in ["", "x", "AAAA", "MTc", &cursor[..cursor.len() - 1], &format!("{cursor}="), "💥"] {
            assert!(cursors.open::<u32>(&binding, forged).is_err(), "{forged}");
        }
    }
}
