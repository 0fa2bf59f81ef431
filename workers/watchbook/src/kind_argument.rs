//! A record kind on the command line.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use records::Kind;

/// Which kind a command is about.
#[derive(Debug, Args)]
pub(crate) struct KindArgument {
    /// The record kind.
    #[arg(value_parser = kind_parser(), value_name = "KIND")]
    pub(crate) kind: Kind,
}

/// A value parser that names the kinds in `--help` and in errors.
pub(crate) fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name())).try_map(|name| name.parse::<Kind>())
}
