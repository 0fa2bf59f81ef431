//! Announcements: small messages on plain subjects, for whoever listens now.

use async_nats::connection::State;
use async_nats::{HeaderMap, PublishErrorKind, header};
use bytes::Bytes;

use crate::Bus;

/// A message for whoever listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// On which subject, whole.
    pub subject: String,
    /// Its `Nats-Msg-Id`: a stream that captures the subject takes it once.
    pub id: String,
    /// The body.
    pub body: Bytes,
}

/// Why an announcement was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// There is no connection now. Nothing is kept for later: what is announced late would be announced twice.
    #[error("there is no connection to NATS: {0}")]
    Away(String),
    /// No server will take it.
    #[error("NATS cannot take the message on {subject}: {reason}")]
    Refused {
        /// On which subject.
        subject: String,
        /// Why.
        reason: String,
    },
}

impl Bus {
    /// Sends announcements, in order, and returns when all of them are on the connection.
    ///
    /// # Errors
    /// Where there is no connection, or one of them can never be sent; those before it may be out.
    pub async fn announce(&self, announcements: Vec<Announcement>) -> Result<(), AnnounceError> {
        let client = self.client();
        // The client would keep them for the time after an outage, when somebody else has sent them long since.
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
