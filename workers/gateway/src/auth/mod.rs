//! Authentication and authorization.
//!
//! - `claims`: checks the claims of a token, and turns them into a [`Caller`]
//! - [`verifier`]: verifies tokens; `jwks` caches the issuer's keys, and `client` fetches them
//! - [`caller`]: roles, organizations, and the scope of a query
//! - `credentials`: finds the token in a request
//! - `session`: the cookie of browsers, and the CSRF check
//! - `guard`: authorizes every request; no other code does

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
