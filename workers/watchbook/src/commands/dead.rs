//! `watchbook dead`: lists, shows, replays and discards dead letters.

use std::process::ExitCode;

use anyhow::Context;
use chrono::TimeDelta;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use records::{Kind, Reason};
use replay::Replayed;
use runtime::Config;
use store::dead_letters::{self, Filter, Settled, StoredDeadLetter};
use store::{Connection, Failure, PgConnection};
use uuid::Uuid;

use crate::kind_argument::kind_parser;
use crate::{output, process};

/// Dead letters read and published at once. At 1 MiB each, a page is about 100 MiB of memory.
const PAGE: u32 = 100;

/// List, show, replay and discard dead letters: messages that could not be stored as a row.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  watchbook dead list --kind events --reason missing_field\n  watchbook dead replay --all --dry-run\n  watchbook dead discard --all --reason invalid_json"
)]
pub(crate) struct Dead {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, oldest first.
    List {
        #[command(flatten)]
        selection: Selection,
        /// Include dead letters that were replayed or discarded.
        #[arg(long)]
        all: bool,
        /// Maximum number of dead letters to list.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print JSON, including the bodies.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter with its whole body, as JSON.
    Show {
        /// Id of the dead letter.
        id: Uuid,
    },
    /// Publish dead letters again. Repeating this does not store a record twice.
    Replay {
        #[command(flatten)]
        selection: Selection,
        /// Select all dead letters that match the other options, without naming ids.
        #[arg(long)]
        all: bool,
        /// Only report which dead letters would be accepted now.
        #[arg(long)]
        dry_run: bool,
        /// Print the result of each dead letter as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Mark dead letters as not needed. They stay in the table until retention removes them.
    Discard {
        #[command(flatten)]
        selection: Selection,
        /// Select all dead letters that match the other options, without naming ids.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct Selection {
    /// Ids of dead letters.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// Select only dead letters of this kind.
    #[arg(long, value_parser = kind_parser())]
    kind: Option<Kind>,
    /// Select only dead letters with this reason.
    #[arg(long, value_parser = reason_parser())]
    reason: Option<Reason>,
}

fn reason_parser() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
        .map(|name| Reason::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or(Reason::InvalidJson))
}

impl Selection {
    fn filter(self, settled_too: bool) -> Filter {
        let (kind, reason) = (self.kind.map(Kind::name), self.reason.map(Reason::name));
        Filter { ids: self.ids, kind, reason, settled_too, failed_before: None }
    }

    /// Returns the filter for a change, which needs ids or `--all`. Selects only dead letters that exist now: a replay
    /// would otherwise find those that come back from its own first pages, and publish them for ever.
    async fn required(self, all: bool, connection: &mut PgConnection) -> anyhow::Result<Filter> {
        anyhow::ensure!(
            all || !self.ids.is_empty(),
            "name dead letters by id (see `watchbook dead list`), or use --all"
        );
        Ok(Filter { failed_before: Some(store::clock(connection).await?), ..self.filter(false) })
    }
}

impl Dead {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        match self.action {
            Action::List { selection, all, limit, json } => {
                let letters = dead_letters::list(&mut connection, &selection.filter(all), None, limit).await?;
                if json { output::json(&letters)? } else { print(&letters, limit) }
            }
            Action::Show { id } => {
                let letter = dead_letters::newest(&mut connection, id).await?;
                output::json(&letter.with_context(|| format!("no dead letter has the id {id}"))?)?;
            }
            Action::Replay { selection, all, dry_run, json } => {
                let filter = selection.required(all, &mut connection).await?;
                Replay { config: &config, connection, dry_run }.run(filter, json).await?;
            }
            Action::Discard { selection, all } => {
                let filter = selection.required(all, &mut connection).await?;
                let discarded = discard(&mut connection, &filter).await?;
                output::say(format_args!("{discarded} discarded"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn discard(connection: &mut PgConnection, filter: &Filter) -> anyhow::Result<u64> {
    let mut discarded = 0;
    let mut after = None;
    loop {
        let letters = dead_letters::list(connection, filter, after, PAGE).await?;
        let Some(last) = letters.last() else { return Ok(discarded) };
        after = Some(last.key());
        let keys = letters.iter().map(StoredDeadLetter::key);
        discarded += dead_letters::mark(connection, keys, Settled::Discarded).await?;
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
        output::say(format_args!("Only the first {limit} are shown; use --limit for more."));
    }
}

struct Replay<'c> {
    config: &'c Config,
    connection: PgConnection,
    dry_run: bool,
}

impl Replay<'_> {
    async fn run(mut self, filter: Filter, json: bool) -> anyhow::Result<()> {
        let mut replayed = Vec::new();
        let ended = self.pages(&filter, &mut replayed).await;
        // Dead letters published before an error are published and marked, so they are reported.
        if ended.is_ok() || !replayed.is_empty() {
            self.report(&replayed, json)?;
        }
        ended?;
        let refused = replayed.iter().filter(|letter| !letter.accepted).count();
        anyhow::ensure!(
            self.dry_run || refused == 0,
            "{refused} of {} dead letters cannot be published and stay as they are",
            replayed.len()
        );
        Ok(())
    }

    async fn pages(&mut self, filter: &Filter, replayed: &mut Vec<Replayed>) -> anyhow::Result<()> {
        let bus = process::bus(self.config).await?;
        let publisher = process::publisher(self.config, &bus)?;
        let mut after = None;
        loop {
            let letters = dead_letters::list(&mut self.connection, filter, after, PAGE).await?;
            let Some(last) = letters.last() else { return Ok(()) };
            after = Some(last.key());
            if self.dry_run {
                for letter in &letters {
                    replayed.push(Replayed::of(letter, self.refusal(letter).await?));
                }
            } else {
                let mut transaction = self.connection.begin().await?;
                let outcome = replay::publish(&mut transaction, &publisher, &letters).await?;
                transaction.commit().await?;
                replayed.extend(outcome.replayed);
                outcome.ended?;
            }
        }
    }

    fn report(&self, replayed: &[Replayed], json: bool) -> anyhow::Result<()> {
        if json {
            return output::json(&replayed);
        }
        for letter in replayed.iter().filter(|letter| self.dry_run || !letter.accepted) {
            let reason = letter.reason.as_deref().unwrap_or("would be accepted");
            output::say(format_args!("{} {} {reason}", letter.id, letter.kind));
        }
        let accepted = replayed.iter().filter(|letter| letter.accepted).count();
        if self.dry_run {
            output::say(format_args!("{accepted} would be accepted, {} would come back", replayed.len() - accepted));
        } else {
            output::say(format_args!("{accepted} published again; `watchbook dead list` shows those that come back"));
        }
        Ok(())
    }

    /// Returns why a writer would reject the letter now. Decodes it, and inserts it in a transaction that is rolled
    /// back.
    async fn refusal(&mut self, letter: &StoredDeadLetter) -> anyhow::Result<Option<String>> {
        let kind: Kind = letter.kind.parse()?;
        let headers = dead_letters::headers_from_json(letter.headers.as_ref());
        let message = replay::message(letter, kind, &self.config.nats.prefix, &headers);
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
                // A writer would create the missing partition.
                Failure::MissingPartition => Ok(None),
                _ => Err(error.into()),
            },
        }
    }
}
