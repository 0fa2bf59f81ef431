//! Cursors: where a list goes on, in a form that a caller can only hand back.
//!
//! `base64url(tag ‖ position)`. The tag is HMAC-SHA-256 over what the cursor is good for (the route, the filters, the
//! caller and whose records they may see) and the position. So one that was changed, made up, or taken from another
//! query or another caller is refused; and a position holds nothing that its caller has not just been told.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::auth::{Caller, Organizations};
use crate::problem::{Fault, Problem};

/// Bytes of a tag that are kept: 128 bits cannot be guessed, and cursors stay short.
const TAG_BYTES: usize = 16;

/// Signs cursors, and opens them. Every gateway of a database has the same key.
#[derive(Clone)]
pub struct Cursors(Hmac<Sha256>);

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors")
    }
}

/// What a cursor is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding(Vec<u8>);

impl Binding {
    /// Of a route's template, the filters of [`Parameters::filters`](crate::query::Parameters::filters), and a caller.
    pub fn new(route: &str, filters: &str, caller: &Caller) -> Self {
        let mut bound = Vec::new();
        let mut add = |part: &str| {
            // With its length, so that no two lists of parts look the same.
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
    /// With this key.
    ///
    /// # Errors
    /// Never with a key of any length; the library says so by its type only.
    pub fn new(key: &[u8]) -> anyhow::Result<Self> {
        Hmac::new_from_slice(key).map(Self).map_err(|_| anyhow::anyhow!("the key of cursors has no length"))
    }

    /// A cursor that goes on at a position.
    ///
    /// # Errors
    /// Where the position cannot be written as JSON, which would be a bug.
    pub fn sign<P: Serialize>(&self, binding: &Binding, position: &P) -> Result<String, Problem> {
        let position = serde_json::to_vec(position).map_err(|error| {
            tracing::error!(%error, "a position cannot be written");
            Problem::internal()
        })?;
        let mut cursor = self.tag(binding, &position).to_vec();
        cursor.extend_from_slice(&position);
        Ok(URL_SAFE_NO_PAD.encode(cursor))
    }

    /// The position of a cursor, where it is one of ours for this query and caller.
    ///
    /// # Errors
    /// 400 otherwise.
    pub fn open<P: DeserializeOwned>(&self, binding: &Binding, cursor: &str) -> Result<P, Problem> {
        self.position(binding, cursor).ok_or_else(|| {
            let reason =
                "is not one that this query gave to this caller: filters have to stay the same from page to page";
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
