//! The reasons why a message cannot become a row.

use std::borrow::Cow;
use std::fmt;

/// The reason of a dead letter. The [names](Reason::name) are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The body is not one JSON object.
    InvalidJson,
    /// A required field is absent or null.
    MissingField,
    /// A field has a value that the contract does not allow.
    InvalidField,
    /// A field or the body exceeds its [limit](crate::limits).
    TooLarge,
    /// The organization in the body is not that in the subject.
    OrganizationMismatch,
    /// `created_at` is older than the kind is kept, or more than a day ahead of the stream's clock.
    CreatedAtOutOfRange,
    /// The subject has another kind than the stream carries.
    UnknownKind,
    /// Postgres refused the row, although it passed every check here.
    RejectedByDatabase,
}

impl Reason {
    /// All reasons, in the order of the contract.
    pub const ALL: [Self; 8] = [
        Self::InvalidJson,
        Self::MissingField,
        Self::InvalidField,
        Self::TooLarge,
        Self::OrganizationMismatch,
        Self::CreatedAtOutOfRange,
        Self::UnknownKind,
        Self::RejectedByDatabase,
    ];

    /// Returns the name in tables, metrics and HTTP responses, such as `missing_field`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::TooLarge => "too_large",
            Self::OrganizationMismatch => "organization_mismatch",
            Self::CreatedAtOutOfRange => "created_at_out_of_range",
            Self::UnknownKind => "unknown_kind",
            Self::RejectedByDatabase => "rejected_by_database",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rejection of a message: a named reason, the field if it concerns one, and an explanation. The message becomes a
/// dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Reject {
    /// The named reason.
    pub reason: Reason,
    /// The field in snake_case; `None` if the rejection concerns the whole message.
    pub field: Option<Cow<'static, str>>,
    /// An explanation for the developer of the producer. It never contains the body, only short excerpts of values.
    pub detail: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{}: {field}: {}", self.reason, self.detail),
            None => write!(f, "{}: {}", self.reason, self.detail),
        }
    }
}

impl Reject {
    /// Returns a rejection that concerns the whole message.
    pub fn message(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, field: None, detail: detail.into() }
    }

    /// Returns a rejection that concerns one field.
    pub fn field(reason: Reason, field: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, field: Some(Cow::Borrowed(field)), detail: detail.into() }
    }

    pub(crate) fn missing(field: &'static str) -> Self {
        Self::field(Reason::MissingField, field, "required, and absent or null")
    }

    pub(crate) fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::field(Reason::InvalidField, field, detail)
    }

    pub(crate) fn too_large(field: &'static str, bytes: usize, limit: usize) -> Self {
        Self::field(Reason::TooLarge, field, format!("{bytes} bytes, the limit is {limit}"))
    }
}
