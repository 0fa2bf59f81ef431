//! Queries: one file for each kind or subject, with the handlers and their parameters. `listing` has what all queries
//! share, `mutation` what all changes share.

// The attribute macros of handlers qualify the parameter types more than necessary.
#![allow(unused_qualifications)]

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod executions;
pub(crate) mod export;
mod listing;
pub(crate) mod logs;
pub(crate) mod me;
pub(crate) mod metrics;
mod mutation;
pub(crate) mod retention;
pub(crate) mod silences;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::IntoParams;

    use super::*;
    use crate::page::{Page, Range};
    use crate::query::{FromQuery, names_of};

    fn described<T: IntoParams>() -> BTreeSet<String> {
        T::into_params(|| None).into_iter().map(|param| param.name).collect()
    }

    fn read<T: FromQuery>() -> BTreeSet<String> {
        names_of::<T>().into_iter().map(str::to_owned).collect()
    }

    /// Compares the described with the parsed parameters. The route of `T` also describes `Shared`.
    fn is_described<T: FromQuery + IntoParams, Shared: IntoParams>() {
        let described: BTreeSet<_> = described::<T>().union(&described::<Shared>()).cloned().collect();
        assert_eq!(described, read::<T>(), "{}", std::any::type_name::<T>());
    }

    #[test]
    fn what_is_described_is_what_is_read() {
        is_described::<events::ListParams, Page>();
        is_described::<errors::ListParams, Page>();
        is_described::<errors::TraceParams, Page>();
        is_described::<metrics::ListParams, Page>();
        is_described::<logs::ListParams, Page>();
        is_described::<executions::ListParams, Page>();
        is_described::<executions::StatsParams, Range>();
        is_described::<executions::TrendParams, executions::TrendParams>();
        let mut groups = described::<errors::ListParams>();
        groups.extend(described::<errors::GroupParams>());
        groups.extend(described::<Page>());
        assert_eq!(groups, read::<errors::GroupParams>());
    }
}
