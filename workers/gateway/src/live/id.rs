//! Ids of live events: encrypted positions in a stream, opaque to readers.
//!
//! A stream numbers the records of all organizations consecutively. A reader that sees one organization could tell from
//! these sequences how much the others publish, so ids do not show them. An id is
//! `base64url(AES-SIV(creation time of the stream ‖ sequence))`, 43 characters, under a key that all gateways of a
//! database share, with the kind as associated data (RFC 5297).
//!
//! - It is encrypted and authenticated: an id that was forged, changed, or taken from another kind is rejected.
//! - It is deterministic: an event has one id, in every gateway and at any time, so it is encoded once for all readers.
//!   Ids reveal only whether they are equal. There is no nonce that could be reused.
//! - It identifies the stream: a recreated stream of the same name has other ids.
//!
//! It is not bound to a caller, because it gives no access: the token decides what a reader sees, from any position.

use aes_siv::KeyInit;
use aes_siv::siv::Aes128Siv;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use records::Kind;

/// Length of a key: two AES-128 keys.
const KEY_BYTES: usize = 32;
/// Length of the tag before the ciphertext, which authenticates it.
const TAG_BYTES: usize = 16;
/// Length of a position: a time and a sequence.
const POSITION_BYTES: usize = 16;

/// A position in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// When the stream was created, in whole microseconds. Distinguishes it from recreated streams of the same name.
    pub(super) stream_created_at: DateTime<Utc>,
    /// The sequence of a message.
    pub(super) sequence: u64,
}

impl Position {
    /// Returns the next position.
    pub(super) fn behind(self) -> Self {
        Self { sequence: self.sequence.saturating_add(1), ..self }
    }
}

/// Encodes and decodes ids.
#[derive(Clone)]
pub(crate) struct Ids([u8; KEY_BYTES]);

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids")
    }
}

impl Ids {
    /// Creates ids with this key.
    ///
    /// # Errors
    /// If the key does not have 32 bytes.
    pub(crate) fn new(key: &[u8]) -> anyhow::Result<Self> {
        let key = key.try_into();
        key.map(Self).map_err(|_| anyhow::anyhow!("the key of live ids does not have {KEY_BYTES} bytes"))
    }

    /// Returns the id of the event at a position.
    pub(super) fn write(&self, kind: Kind, position: Position) -> String {
        let (mut id, mut sealed) = ([0; TAG_BYTES + POSITION_BYTES], plain(position));
        let tag = self.cipher().encrypt_inout_detached([kind.name()], sealed.as_mut_slice().into());
        // Fails only with more than a hundred items of associated data. An event without an id is still sent.
        let Ok(tag) = tag else { return String::new() };
        id[..TAG_BYTES].copy_from_slice(&tag);
        id[TAG_BYTES..].copy_from_slice(&sealed);
        URL_SAFE_NO_PAD.encode(id)
    }

    /// Returns the position of a valid id of this kind.
    pub(super) fn read(&self, kind: Kind, id: &str) -> Option<Position> {
        let id: [u8; TAG_BYTES + POSITION_BYTES] = URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()?;
        let (tag, sealed) = id.split_first_chunk::<TAG_BYTES>()?;
        let mut opened = <[u8; POSITION_BYTES]>::try_from(sealed).ok()?;
        self.cipher().decrypt_inout_detached([kind.name()], opened.as_mut_slice().into(), &(*tag).into()).ok()?;
        let (stream_created_at, sequence) = opened.split_first_chunk::<8>()?;
        Some(Position {
            stream_created_at: DateTime::from_timestamp_micros(i64::from_be_bytes(*stream_created_at))?,
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
        })
    }

    /// Creates the cipher. Using it changes it, so it cannot be shared. An id takes half a microsecond in total.
    fn cipher(&self) -> Aes128Siv {
        Aes128Siv::new(&self.0.into())
    }
}

fn plain(position: Position) -> [u8; POSITION_BYTES] {
    let mut plain = [0; POSITION_BYTES];
    plain[..8].copy_from_slice(&position.stream_created_at.timestamp_micros().to_be_bytes());
    plain[8..].copy_from_slice(&position.sequence.to_be_bytes());
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(sequence: u64) -> Position {
        Position { stream_created_at: DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap(), sequence }
    }

    #[test]
    fn every_gateway_reads_what_one_has_written() {
        let key = [7; KEY_BYTES];
        for sequence in [0, 1, 4711, u64::MAX] {
            let id = Ids::new(&key).unwrap().write(Kind::Events, position(sequence));
            assert_eq!(id, Ids::new(&key).unwrap().write(Kind::Events, position(sequence)));
            assert_eq!(Ids::new(&key).unwrap().read(Kind::Events, &id), Some(position(sequence)));
            assert_eq!(id.len(), 43, "{id}");
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{id}");
        }
        assert!(Ids::new(&[7; 31]).is_err() && Ids::new(&[]).is_err());
    }

    #[test]
    fn what_was_made_up_is_no_id() {
        let ids = Ids::new(&[7; KEY_BYTES]).unwrap();
        let id = ids.write(Kind::Events, position(4711));
        let mut bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert_eq!(ids.read(Kind::Events, &URL_SAFE_NO_PAD.encode(&bytes)), None, "byte {at}");
                bytes[at] ^= 1 << bit;
            }
        }
        for wrong in ["", "4711", "AAAA", &id[1..], &format!("{id}A"), &format!("{id}="), &"A".repeat(43), "💥"] {
            assert_eq!(ids.read(Kind::Events, wrong), None, "{wrong}");
        }
        for &kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Events) {
            assert_eq!(ids.read(kind, &id), None, "{kind}");
            assert_ne!(ids.write(kind, position(4711)), id, "{kind}");
        }
        assert_eq!(Ids::new(&[8; KEY_BYTES]).unwrap().read(Kind::Events, &id), None);
    }

    #[test]
    fn neighbours_have_nothing_in_common() {
        let ids = Ids::new(&[7; KEY_BYTES]).unwrap();
        let bytes = |sequence| URL_SAFE_NO_PAD.decode(ids.write(Kind::Logs, position(sequence))).unwrap();
        let differing = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        for sequence in 1..1_000 {
            // About half of the 256 bits differ; the probability of fewer than 64 is one in 10^16.
            assert!(differing(&bytes(sequence), &bytes(sequence + 1)) >= 64, "{sequence}");
        }
    }

    #[test]
    fn another_stream_of_the_name_has_other_ids() {
        let ids = Ids::new(&[7; KEY_BYTES]).unwrap();
        let later = Position {
            stream_created_at: position(1).stream_created_at + chrono::TimeDelta::microseconds(1),
            sequence: 1,
        };
        assert_ne!(ids.write(Kind::Logs, position(1)), ids.write(Kind::Logs, later));
        assert_eq!(position(1).behind(), position(2));
        assert_eq!(position(u64::MAX).behind(), position(u64::MAX));
    }
}
