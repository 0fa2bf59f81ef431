//! `watchbook status`: the position and counts of each kind, and whether they add up.

use std::process::ExitCode;

use bus::{Bus, BusError};
use chrono::Utc;
use clap::Args;
use futures::future::join_all;
use records::Kind;
use runtime::Config;
use serde::Serialize;
use store::positions::{self, Account};
use store::{Lease, PgConnection};
use writer::Writer;

use crate::{output, process};

/// Show each kind's position and counts, and whether they add up.
///
/// When nothing is in flight: last sequence = stored + duplicates + dead letters + deleted. The exit code is 1 if a
/// stream is missing or does not answer, or if the counts of settled messages do not add up. If a stream does not
/// answer, the values from Postgres are shown, and those that only the stream knows are empty (`null`). Other kinds are
/// not affected.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One kind. The names are part of the contract.
#[derive(Debug, Serialize)]
struct KindStatus {
    kind: &'static str,
    stream: String,
    /// The last sequence of the stream; `None` if it does not answer.
    last_sequence: Option<u64>,
    /// The sequence up to which everything is settled.
    settled: u64,
    /// The number of unsettled sequences; `None` if the stream does not answer.
    pending: Option<u64>,
    stored: u64,
    duplicates: u64,
    dead_letters: u64,
    deleted: u64,
    /// New records a second over the last two minutes.
    rate: f64,
    /// Age of the oldest unsettled message.
    oldest_unsettled_seconds: Option<f64>,
    /// The process that writes.
    writer: Option<String>,
    /// Whether every settled sequence has exactly one outcome.
    adds_up: bool,
    /// The reason why values are missing.
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
        // Read positions before streams: `settled` only grows, so it cannot exceed the last sequence.
        let mut accounts = Vec::with_capacity(Kind::ALL.len());
        for &kind in Kind::ALL {
            accounts.push(of_postgres(&bus, &mut connection, kind).await?);
        }
        // In parallel, each with the request time-out of `Bus`, so that a silent stream delays no other.
        let asked =
            Kind::ALL.iter().zip(&accounts).map(|(&kind, (account, _))| of_stream(&bus, kind, account.as_ref()));
        let streams = join_all(asked).await;
        let of_kind = |(((&kind, writer), (account, rate)), stream)| {
            KindStatus::new(kind, bus.stream_name(kind), writer, account, rate, stream)
        };
        let kinds: Vec<_> = Kind::ALL.iter().zip(writers).zip(accounts).zip(streams).map(of_kind).collect();
        if self.json {
            output::json(&kinds)?;
        } else {
            print(&kinds);
        }
        let sound = kinds.iter().all(|kind| kind.adds_up && kind.problem.is_none());
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The state of a kind's stream.
struct OfStream {
    last_sequence: Option<u64>,
    /// When the oldest unsettled message was published, in nanoseconds since 1970.
    oldest_ns: Option<i64>,
    problem: Option<String>,
}

/// Returns the account of a kind, and its new records a second.
async fn of_postgres(bus: &Bus, connection: &mut PgConnection, kind: Kind) -> anyhow::Result<(Option<Account>, f64)> {
    let account = positions::find(connection, &bus.stream_name(kind)).await?;
    Ok((account, store::outcomes::rate(connection, kind, Utc::now()).await?))
}

async fn of_stream(bus: &Bus, kind: Kind, account: Option<&Account>) -> OfStream {
    let last_sequence = match bus.stream_state(kind).await {
        Ok(state) => state.last_sequence,
        Err(error) => {
            // A missing stream has no sequences.
            let last_sequence = matches!(error, BusError::Missing { .. }).then_some(0);
            return OfStream { last_sequence, oldest_ns: None, problem: Some(error.to_string()) };
        }
    };
    let (settled, count) = settled(account);
    let oldest = if last_sequence > count { bus.published_ns(kind, settled + 1).await } else { Ok(None) };
    let (oldest_ns, problem) = match oldest {
        Ok(oldest_ns) => (oldest_ns, None),
        Err(error) => (None, Some(error.to_string())),
    };
    OfStream { last_sequence: Some(last_sequence), oldest_ns, problem }
}

/// Returns the sequence up to which everything is settled, and the number of settled sequences.
fn settled(account: Option<&Account>) -> (u64, u64) {
    account.map_or((0, 0), |account| (account.position.settled_up_to(), account.position.settled_count()))
}

impl KindStatus {
    fn new(
        kind: Kind,
        stream: String,
        writer: Option<String>,
        account: Option<Account>,
        rate: f64,
        seen: OfStream,
    ) -> Self {
        let (settled, settled_count) = settled(account.as_ref());
        let counters = account.map_or((0, 0, 0, 0), |a| (a.stored, a.duplicates, a.dead_letters, a.deleted));
        let (stored, duplicates, dead_letters, deleted) = counters;
        let now_ns = Utc::now().timestamp_nanos_opt().unwrap_or_default();
        Self {
            kind: kind.name(),
            stream,
            last_sequence: seen.last_sequence,
            settled,
            pending: seen.last_sequence.map(|last_sequence| last_sequence.saturating_sub(settled_count)),
            stored,
            duplicates,
            dead_letters,
            deleted,
            rate,
            oldest_unsettled_seconds: seen.oldest_ns.map(|ns| (now_ns - ns).max(0) as f64 / 1e9),
            writer,
            adds_up: settled_count == stored + duplicates + dead_letters + deleted,
            problem: seen.problem,
        }
    }
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
            Some(kind.settled),
            kind.pending,
            Some(kind.stored),
            Some(kind.duplicates),
            Some(kind.dead_letters),
            Some(kind.deleted),
        ];
        let mut row = vec![kind.kind.to_owned()];
        row.extend(numbers.map(|number| number.map_or_else(|| "-".to_owned(), output::grouped)));
        row.push(format!("{:.1}", kind.rate));
        row.push(kind.oldest_unsettled_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age:.1} s")));
        row.push(kind.writer.clone().unwrap_or_else(|| "none".to_owned()));
        row.push(verdict);
        table.add_row(row);
    }
    output::say(format_args!("{table}"));
}
