//! `GET /api/me`: the caller and its permissions.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Caller, Organizations, Role};
use crate::query::{NoParams, Query};

/// The caller and its permissions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The token's `sub`.
    subject: String,
    /// The role, which decides what the caller may do.
    role: Role,
    /// The organizations whose records the caller may read and publish; `*` for all.
    organizations: Vec<String>,
}

impl Me {
    pub(crate) fn of(caller: &Caller) -> Self {
        let organizations = match &caller.organizations {
            Organizations::All => vec!["*".to_owned()],
            Organizations::Set(own) => own.iter().cloned().collect(),
        };
        Self { subject: caller.subject.to_string(), role: caller.role, organizations }
    }
}

/// Returns the caller and its permissions.
#[utoipa::path(get, path = "/api/me", responses((status = 200, description = "The caller.", body = Me)))]
pub(crate) async fn me(Query(NoParams): Query<NoParams>, caller: Caller) -> Json<Me> {
    Json(Me::of(&caller))
}
