//! `watchbook status`: where each kind's writer stands, and whether it adds up.

use std::process::ExitCode;

use bus::{Bus, BusError};
use chrono::Utc;
use clap::Args;
use records::Kind;
use runtime::Config;
use serde::Serialize;
use store::{Lease, PgConnection, positions};
use writer::Writer;

use crate::{output, process};

/// Show where each kind's writer stands, and whether it adds up.
///
/// At any quiet moment: last sequence = stored + duplicates + dead letters + deleted. Exit code 1
/// where a stream is missing or the sum is wrong for what is settled.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// As a JSON array.
    #[arg(long)]
    json: bool,
}

/// One kind. The names are part of the contract.
#[derive(Debug, Serialize)]
struct KindStatus {
    kind: &'static str,
    stream: String,
    /// The last sequence that the stream gave.
    last_sequence: u64,
    /// The last sequence up to which everything is settled.
    settled: u64,
    /// Sequences that are not settled yet.
    pending: u64,
    stored: u64,
    duplicates: u64,
    dead_letters: u64,
    deleted: u64,
    /// New records a second, over the last two minutes.
    rate: f64,
    /// Age of the oldest message that is not settled.
    oldest_unsettled_seconds: Option<f64>,
    /// Which process writes.
    writer: Option<String>,
    /// Whether every settled sequence has one outcome.
    adds_up: bool,
    /// What keeps this from being told.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Status {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let leases: Vec<_> = Kind::ALL.iter().map(|kind| Writer::lease_name(&bus.stream_name(*kind))).collect();
        let writers = Lease::holders(&mut connection, &leases).await?;
        let mut kinds = Vec::new();
        for (&kind, writer) in Kind::ALL.iter().zip(writers) {
            kinds.push(of_kind(&bus, &mut connection, kind, writer).await?);
        }
        if self.json {
            output::json(&kinds)?;
        } else {
            print(&kinds);
        }
        let sound = kinds.iter().all(|kind| kind.adds_up && kind.problem.is_none());
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn of_kind(
    bus: &Bus,
    connection: &mut PgConnection,
    kind: Kind,
    writer: Option<String>,
) -> anyhow::Result<KindStatus> {
    // The account first: what is settled afterwards is only more, so nothing looks settled that is not.
    let stream = bus.stream_name(kind);
    let account = positions::find(connection, &stream).await?;
    let (last_sequence, problem) = match bus.stream_state(kind).await {
        Ok(state) => (state.last_sequence, None),
        Err(error @ BusError::Missing { .. }) => (0, Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let rate = store::outcomes::rate(connection, kind, Utc::now()).await?;
    let account = account.as_ref();
    let (settled, settled_count) =
        account.map_or((0, 0), |account| (account.position.settled_up_to(), account.position.settled_count()));
    let pending = last_sequence.saturating_sub(settled_count);
    let oldest = if pending > 0 && problem.is_none() { bus.published_ns(kind, settled + 1).await? } else { None };
    let counters = account.map_or((0, 0, 0, 0), |a| (a.stored, a.duplicates, a.dead_letters, a.deleted));
    let (stored, duplicates, dead_letters, deleted) = counters;
    Ok(KindStatus {
        kind: kind.name(),
        stream,
        last_sequence,
        settled,
        pending,
        stored,
        duplicates,
        dead_letters,
        deleted,
        rate,
        oldest_unsettled_seconds: oldest
            .map(|ns| (Utc::now().timestamp_nanos_opt().unwrap_or_default() - ns).max(0) as f64 / 1e9),
        writer,
        adds_up: settled_count == stored + duplicates + dead_letters + deleted,
        problem,
    })
}

fn print(kinds: &[KindStatus]) {
    let header = [
        "KIND",
        "LAST",
        "SETTLED",
        "PENDING",
        "STORED",
        "DUPLICATES",
        "DEAD",
        "DELETED",
        "RATE/S",
        "OLDEST",
        "WRITER",
        "",
    ];
    let mut table = output::table(header, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for kind in kinds {
        let verdict = match (&kind.problem, kind.adds_up) {
            (Some(problem), _) => problem.clone(),
            (None, true) => "adds up".to_owned(),
            (None, false) => "DOES NOT ADD UP".to_owned(),
        };
        let numbers = [
            kind.last_sequence,
            kind.settled,
            kind.pending,
            kind.stored,
            kind.duplicates,
            kind.dead_letters,
            kind.deleted,
        ];
        let mut row = vec![kind.kind.to_owned()];
        row.extend(numbers.map(output::grouped));
        row.push(format!("{:.1}", kind.rate));
        row.push(kind.oldest_unsettled_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age:.1} s")));
        row.push(kind.writer.clone().unwrap_or_else(|| "nobody".to_owned()));
        row.push(verdict);
        table.add_row(row);
    }
    output::say(format_args!("{table}"));
}
