//! Announcements: small messages on plain subjects, for current subscribers.

use async_nats::connection::State;
use async_nats::{HeaderMap, PublishErrorKind, header};
use bytes::Bytes;

use crate::Bus;

/// A message for current subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The complete subject.
    pub subject: String,
    /// The `Nats-Msg-Id`. A stream that captures the subject stores it once within its duplicate window.
    pub id: String,
    /// The body.
    pub body: Bytes,
}

/// Why an announcement was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// There is no connection. The announcement is not buffered, because sending it later could send it twice.
    #[error("there is no connection to NATS: {0}")]
    Away(String),
    /// No server can accept the message.
    #[error("NATS cannot take the message on {subject}: {reason}")]
    Refused {
        /// The subject of the message.
        subject: String,
        /// The client's error.
        reason: String,
    },
}

impl Bus {
    /// Sends announcements in order, and returns when all are written to the connection.
    ///
    /// # Errors
    /// There is no connection, or an announcement can never be sent. The announcements before it may have been sent.
    pub async fn announce(&self, announcements: Vec<Announcement>) -> Result<(), AnnounceError> {
        let client = self.client();
        // The client would buffer them until the outage ends, when another process has sent them long ago.
        if client.connection_state() != State::Connected {
            return Err(AnnounceError::Away("reconnecting".to_owned()));
        }
        for Announcement { subject, id, body } in announcements {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_ID, id);
            client.publish_with_headers(subject.clone(), headers, body).await.map_err(|error| match error.kind() {
                PublishErrorKind::Send => AnnounceError::Away(error.to_string()),
                _ => AnnounceError::Refused { subject, reason: error.to_string() },
            })?;
        }
        client.flush().await.map_err(|error| AnnounceError::Away(error.to_string()))
    }
}
