//! `GET /api/me`: who calls, and what they may.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Caller, Organizations, Role};
use crate::query::{NoParams, Query};

/// Who calls, and what they may.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The token's `sub`.
    subject: String,
    /// What they may do.
    role: Role,
    /// Whose records they may see and post; `*` for everybody's.
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

/// Who calls, and what they may.
#[utoipa::path(get, path = "/api/me", responses((status = 200, description = "The caller.", body = Me)))]
pub(crate) async fn me(Query(NoParams): Query<NoParams>, caller: Caller) -> Json<Me> {
    Json(Me::of(&caller))
}
