//! Who calls, and what they may.
//!
//! - `claims`: what a token says, and how it becomes a [`Caller`]
//! - [`verifier`]: whether a token is the issuer's and good now; `jwks` keeps the issuer's keys
//! - [`caller`]: roles, organizations, and whose records a query is about
//! - `credentials`: where in a request a token stands
//! - `session`: the cookie of browsers, and the guard against requests that a foreign page sends with it
//! - `guard`: the one place that lets a request through, for every route

pub mod caller;
mod claims;
mod client;
mod credentials;
mod guard;
mod jwks;
pub(crate) mod session;
pub mod verifier;

pub use caller::{Caller, Organizations, Role};
pub use claims::LATEST_DATE;
pub use guard::Access;
pub(crate) use guard::{Guard, guard, verify};
pub(crate) use verifier::Expiry;
pub use verifier::Verifier;
