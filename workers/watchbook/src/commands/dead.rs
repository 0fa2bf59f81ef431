//! `watchbook dead`: dead letters.

use std::process::ExitCode;

use anyhow::Context;
use chrono::TimeDelta;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use publisher::Encoded;
use records::{Headers, Kind, Message, REPLAY_ID_HEADER, REPLAY_TIME_HEADER, Reason};
use runtime::Config;
use serde::Serialize;
use store::dead_letters::{self, Filter, Settled, StoredDeadLetter};
use store::{Connection, Failure, PgConnection};
use uuid::Uuid;

use crate::kind_argument::kind_parser;
use crate::{output, process};

/// Dead letters that are read and published at once: at 1 MiB each what a command may well hold.
const PAGE: u32 = 100;

/// List, show, replay and discard dead letters: messages that could not become a row.
#[derive(Debug, Args)]
pub(crate) struct Dead {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, oldest first.
    List {
        #[command(flatten)]
        which: Which,
        /// Those that were replayed or discarded as well.
        #[arg(long)]
        all: bool,
        /// How many at the most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// As JSON, bodies included.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter whole.
    Show {
        /// Its id.
        id: Uuid,
    },
    /// Publish dead letters again. Stored once, however often this is done.
    Replay {
        #[command(flatten)]
        which: Which,
        /// All that the other options let through, without naming ids.
        #[arg(long)]
        all: bool,
        /// Only tell what would be accepted now.
        #[arg(long)]
        dry_run: bool,
        /// The result of each as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Mark dead letters as not needed. They stay in the table until retention takes them.
    Discard {
        #[command(flatten)]
        which: Which,
        /// All that the other options let through, without naming ids.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Ids.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// Only of this kind.
    #[arg(long, value_parser = kind_parser())]
    kind: Option<Kind>,
    /// Only with this reason.
    #[arg(long, value_parser = reason_parser())]
    reason: Option<Reason>,
}

fn reason_parser() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
        .map(|name| Reason::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or(Reason::InvalidJson))
}

impl Which {
    fn filter(self, settled_too: bool) -> Filter {
        Filter { ids: self.ids, kind: self.kind.map(Kind::name), reason: self.reason.map(Reason::name), settled_too }
    }

    /// Doing something to dead letters needs a choice.
    fn chosen(self, all: bool) -> anyhow::Result<Filter> {
        anyhow::ensure!(
            all || !self.ids.is_empty(),
            "name dead letters by id (`watchbook dead list` shows them), or say --all"
        );
        Ok(self.filter(false))
    }
}

impl Dead {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        match self.action {
            Action::List { which, all, limit, json } => {
                let letters = dead_letters::list(&mut connection, &which.filter(all), None, limit).await?;
                if json { output::json(&letters)? } else { print(&letters, limit) }
            }
            Action::Show { id } => {
                let filter = Filter { ids: vec![id], settled_too: true, ..Filter::default() };
                let letters = dead_letters::list(&mut connection, &filter, None, 1).await?;
                let letter = letters.first().with_context(|| format!("no dead letter has the id {id}"))?;
                output::json(letter)?;
            }
            Action::Replay { which, all, dry_run, json } => {
                let replay = Replay { config: &config, connection, dry_run };
                return replay.run(which.chosen(all)?, json).await;
            }
            Action::Discard { which, all } => {
                let filter = which.chosen(all)?;
                let mut discarded = 0;
                let mut after = None;
                loop {
                    let letters = dead_letters::list(&mut connection, &filter, after, PAGE).await?;
                    let Some(last) = letters.last() else { break };
                    after = Some((last.failed_at, last.id));
                    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
                    discarded += dead_letters::mark(&mut connection, &ids, Settled::Discarded).await?;
                }
                output::say(format_args!("{discarded} discarded"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(letters: &[StoredDeadLetter], limit: u32) {
    let mut table = output::table(["FAILED AT", "KIND", "REASON", "FIELD", "DETAIL", "ID"], &[]);
    for letter in letters {
        table.add_row([
            letter.failed_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            letter.kind.clone(),
            letter.reason.clone(),
            letter.field.clone().unwrap_or_else(|| "-".to_owned()),
            letter.detail.clone(),
            letter.id.to_string(),
        ]);
    }
    output::say(format_args!("{table}"));
    if letters.len() == limit as usize {
        output::say(format_args!("The first {limit}; --limit shows more."));
    }
}

struct Replay<'c> {
    config: &'c Config,
    connection: PgConnection,
    dry_run: bool,
}

/// What became, or would become, of one dead letter.
#[derive(Debug, Serialize)]
struct Replayed {
    id: Uuid,
    kind: String,
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Replay<'_> {
    async fn run(mut self, filter: Filter, json: bool) -> anyhow::Result<ExitCode> {
        let bus = process::bus(self.config).await?;
        let publisher = process::publisher(self.config, &bus)?;
        let mut replayed = Vec::new();
        let mut after = None;
        loop {
            let letters = dead_letters::list(&mut self.connection, &filter, after, PAGE).await?;
            let Some(last) = letters.last() else { break };
            after = Some((last.failed_at, last.id));
            if self.dry_run {
                for letter in &letters {
                    replayed.push(self.would_be(letter).await?);
                }
            } else {
                replayed.extend(self.publish(&publisher, &letters).await?);
            }
        }
        let accepted = replayed.iter().filter(|letter| letter.accepted).count();
        if json {
            output::json(&replayed)?;
        } else if self.dry_run {
            for letter in &replayed {
                output::say(format_args!(
                    "{} {} {}",
                    letter.id,
                    letter.kind,
                    letter.reason.as_deref().unwrap_or("would be accepted")
                ));
            }
            output::say(format_args!("{accepted} would be accepted, {} would come back", replayed.len() - accepted));
        } else {
            output::say(format_args!("{accepted} published again; `watchbook dead list` shows those that come back"));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Publishes dead letters, and marks them in the transaction that keeps other replays from them.
    /// A crash between the two publishes them twice, and their identity stores them once.
    async fn publish(
        &mut self,
        publisher: &publisher::Publisher,
        letters: &[StoredDeadLetter],
    ) -> anyhow::Result<Vec<Replayed>> {
        let mut transaction = self.connection.begin().await?;
        let mine = dead_letters::lock(&mut transaction, letters).await?;
        let mut published = Vec::new();
        for &kind in Kind::ALL {
            let of_kind: Vec<_> =
                letters.iter().filter(|letter| letter.kind == kind.name() && mine.contains(&letter.id)).collect();
            let messages =
                of_kind.iter().map(|letter| encoded(letter, kind, self.config)).collect::<anyhow::Result<Vec<_>>>()?;
            if messages.is_empty() {
                continue;
            }
            publisher.publish_encoded(kind, messages).await.map_err(|error| {
                anyhow::anyhow!(
                    "{} dead letters of kind {kind} were not acknowledged and stay as they are: {}",
                    of_kind.len() - error.acknowledged(),
                    error.error()
                )
            })?;
            published.extend(of_kind.iter().map(|letter| Replayed {
                id: letter.id,
                kind: letter.kind.clone(),
                accepted: true,
                reason: None,
            }));
        }
        let ids: Vec<_> = published.iter().map(|letter| letter.id).collect();
        dead_letters::mark(&mut transaction, &ids, Settled::Replayed).await?;
        transaction.commit().await?;
        Ok(published)
    }

    /// What a writer would do with it now: decode it, and try it in a transaction that is rolled back.
    async fn would_be(&mut self, letter: &StoredDeadLetter) -> anyhow::Result<Replayed> {
        let reason = self.refusal(letter).await?;
        Ok(Replayed { id: letter.id, kind: letter.kind.clone(), accepted: reason.is_none(), reason })
    }

    async fn refusal(&mut self, letter: &StoredDeadLetter) -> anyhow::Result<Option<String>> {
        let kind: Kind = letter.kind.parse()?;
        let headers = dead_letters::headers_from_json(letter.headers.as_ref());
        let message = message(letter, kind, self.config, &headers);
        let keep =
            self.config.retention.keep.of(kind.name()).duration().and_then(|keep| TimeDelta::from_std(keep).ok());
        let mut row = Vec::new();
        if let Err(reject) = records::encode(&message, keep, &mut row) {
            return Ok(Some(reject.to_string()));
        }
        let mut transaction = self.connection.begin().await?;
        let tried = store::batch::merge(&mut transaction, kind, &row).await;
        transaction.rollback().await?;
        match tried {
            Ok(_) => Ok(None),
            Err(error) => match Failure::of(&error) {
                Failure::BadRow => Ok(Some(format!("{}: {}", Reason::RejectedByDatabase, store::describe(&error)))),
                // The writer makes the partition that this try finds missing.
                Failure::MissingPartition => Ok(None),
                _ => Err(error.into()),
            },
        }
    }
}

/// A dead letter as the message that it was.
fn message<'l>(letter: &'l StoredDeadLetter, kind: Kind, config: &'l Config, headers: &'l Headers) -> Message<'l> {
    Message {
        kind,
        prefix: &config.nats.prefix,
        subject: &letter.subject,
        stream: &letter.stream,
        sequence: u64::try_from(letter.stream_seq).unwrap_or_default(),
        published_at: letter.received_at,
        headers,
        body: &letter.payload,
    }
}

/// A dead letter as it is published again: with its headers, and the identity that it had.
fn encoded(letter: &StoredDeadLetter, kind: Kind, config: &Config) -> anyhow::Result<Encoded> {
    let headers = dead_letters::headers_from_json(letter.headers.as_ref());
    // The letter's own id, and not one derived anew: the table keeps microseconds of the stream's nanoseconds.
    let (_, time) = message(letter, kind, config, &headers).replay_identity();
    let of_replay =
        [(REPLAY_ID_HEADER.to_owned(), letter.id.to_string()), (REPLAY_TIME_HEADER.to_owned(), time.to_rfc3339())];
    let kept =
        headers.iter().filter(|(name, _)| !is_replaced(name)).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Headers = kept.chain(of_replay).collect();
    Ok(Encoded::new(letter.subject.clone(), letter.payload.clone()).with_headers(headers))
}

/// Headers that speak to the stream and not of the record: carried on, they would make the stream
/// take the replay for a duplicate, or refuse it.
fn is_replaced(name: &str) -> bool {
    let is = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is("Nats-") || name.eq_ignore_ascii_case(REPLAY_ID_HEADER) || name.eq_ignore_ascii_case(REPLAY_TIME_HEADER)
}
