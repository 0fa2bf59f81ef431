//! The record kind as a command-line argument.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use records::Kind;

/// The `KIND` argument of a command.
#[derive(Debug, Args)]
pub(crate) struct KindArgument {
    /// Record kind.
    #[arg(value_parser = kind_parser(), value_name = "KIND")]
    pub(crate) kind: Kind,
}

/// Returns a value parser that lists the kinds in `--help` and in errors.
pub(crate) fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name())).try_map(|name| name.parse::<Kind>())
}
