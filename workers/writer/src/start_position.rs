//! Checks whether Postgres knows this stream, and finds the sequence to read from.
//!
//! Sequences repeat after a stream was deleted and recreated, or truncated: a crash of the operating system can
//! lose messages that were acknowledged but not yet on disk. The position stores what reveals both: the creation
//! time of the stream, and the timestamp of the newest settled message.

use bus::{Bus, BusError, StreamState};
use records::Kind;
use store::PgConnection;
use store::positions::{self, Position, StreamIdentity};

/// A stream and its settled ranges.
#[derive(Debug)]
pub(crate) struct StartPosition {
    pub(crate) stream: StreamState,
    pub(crate) identity: StreamIdentity,
    pub(crate) position: Position,
}

/// An error that prevents reading the stream or its position.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartPositionError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("Postgres request failed: {0}")]
    Store(#[from] store::Error),
}

/// Reads the state of the stream and its position. Corrects the position if the stream was recreated or truncated.
pub(crate) async fn find(
    bus: &Bus,
    connection: &mut PgConnection,
    kind: Kind,
) -> Result<StartPosition, StartPositionError> {
    let seen = bus.stream_state(kind).await?;
    let identity = StreamIdentity { name: seen.name, created_at: seen.created_at };
    let mut position = positions::load(connection, &identity, kind).await?;
    // The stream is read again after the position. The previous writer may have settled more in between, and an
    // older state of the stream would then look truncated.
    let stream = bus.stream_state(kind).await?;
    let identity = StreamIdentity { created_at: stream.created_at, ..identity };
    if position.created_at != stream.created_at {
        tracing::warn!(
            stream = stream.name, was = %position.created_at, is = %stream.created_at,
            "the stream was deleted and recreated; reading it from its start"
        );
        positions::reset_for_recreated_stream(connection, &identity, position.created_at).await?;
        position = positions::load(connection, &identity, kind).await?;
    } else if let Some(agreed) = find_truncation(bus, kind, &stream, &position).await? {
        tracing::warn!(
            stream = stream.name,
            last_agreed = agreed,
            was_settled_up_to = position.settled.last().map(|(_, last)| *last),
            "the stream was truncated; reading again from the last sequence on which stream and position agree"
        );
        positions::rewind_truncated_stream(connection, &identity, agreed).await?;
        position = positions::load(connection, &identity, kind).await?;
    }
    Ok(StartPosition { stream, identity, position })
}

/// Returns the last sequence on which stream and position agree, or `None` if the stream was not truncated.
pub(crate) async fn find_truncation(
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
            // The message was trimmed after its replay window, or deleted. There is no evidence of a truncation.
            None => false,
        }
    };
    if !lost {
        return Ok(None);
    }
    // The stream's timestamps only grow, so a message newer than our newest one was published after the loss.
    let agreed = bus.last_sequence_before(kind, published_ns.saturating_add(1)).await?;
    Ok(Some(agreed.min(stream.last_sequence)))
}
