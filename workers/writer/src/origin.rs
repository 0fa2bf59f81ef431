//! Is this still the stream that Postgres knows, and from where is it read?
//!
//! Sequences repeat when a stream was deleted and made anew, and when it lost its tail: a crash of the
//! operating system can take messages that were acknowledged and not yet on disk. The position keeps
//! what tells both apart: the stream's creation time, and the newest settled message's own timestamp.

use bus::{Bus, BusError, StreamState};
use records::Kind;
use store::PgConnection;
use store::positions::{self, Position, StreamIdentity};

/// A stream, and what of it is settled.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) stream: StreamState,
    pub(crate) identity: StreamIdentity,
    pub(crate) position: Position,
}

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("Postgres does not answer: {0}")]
    Store(#[from] store::Error),
}

/// Finds the stream and its position, and mends the position where the stream is not the one it speaks of.
pub(crate) async fn find(bus: &Bus, connection: &mut PgConnection, kind: Kind) -> Result<Origin, OriginError> {
    let seen = bus.stream_state(kind).await?;
    let identity = StreamIdentity { name: seen.name, created_at: seen.created_at };
    let mut position = positions::load(connection, &identity, kind).await?;
    // Asked again behind the position: whoever wrote until now may have settled more in between, and a
    // stream that was seen before that would look as if it had lost its tail.
    let stream = bus.stream_state(kind).await?;
    let identity = StreamIdentity { created_at: stream.created_at, ..identity };
    if position.created_at != stream.created_at {
        tracing::warn!(
            stream = stream.name, was = %position.created_at, is = %stream.created_at,
            "the stream was deleted and made anew; reading it from its start"
        );
        positions::start_anew(connection, &identity, position.created_at).await?;
        position = positions::load(connection, &identity, kind).await?;
    } else if let Some(agreed) = lost_tail(bus, kind, &stream, &position).await? {
        tracing::warn!(
            stream = stream.name,
            last_agreed = agreed,
            was_settled_up_to = position.settled.last().map(|(_, last)| *last),
            "the stream lost its tail; reading again from where both agree"
        );
        positions::rewind(connection, &identity, agreed).await?;
        position = positions::load(connection, &identity, kind).await?;
    }
    Ok(Origin { stream, identity, position })
}

/// The last sequence on which stream and position agree, where they do not agree on all of it.
pub(crate) async fn lost_tail(
    bus: &Bus,
    kind: Kind,
    stream: &StreamState,
    position: &Position,
) -> Result<Option<u64>, BusError> {
    let settled = position.settled.last().map_or(0, |(_, last)| *last);
    let Some((sequence, published_ns)) = position.newest else {
        return Ok((settled > stream.last_sequence).then_some(stream.last_sequence));
    };
    let lost = if settled > stream.last_sequence {
        true
    } else {
        match bus.published_ns(kind, sequence).await? {
            Some(actual) => actual != published_ns,
            // Trimmed behind the replay window, or deleted: no witness, and no reason for doubt.
            None => false,
        }
    };
    if !lost {
        return Ok(None);
    }
    // A stream's timestamps only grow, so what was published after our newest came after the loss.
    let agreed = bus.last_sequence_before(kind, published_ns.saturating_add(1)).await?;
    Ok(Some(agreed.min(stream.last_sequence)))
}
