//! `watchbook dead`: dead letters.

use std::process::ExitCode;

use anyhow::Context;
use async_nats::{HeaderName, HeaderValue};
use chrono::TimeDelta;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use publisher::{Encoded, PublishError, Publisher};
use records::{Headers, Kind, Message, REPLAY_ID_HEADER, REPLAY_TIME_HEADER, Reason};
use runtime::Config;
use serde::Serialize;
use store::dead_letters::{self, Filter, Key, Settled, StoredDeadLetter};
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
        let (kind, reason) = (self.kind.map(Kind::name), self.reason.map(Reason::name));
        Filter { ids: self.ids, kind, reason, settled_too, failed_before: None }
    }

    /// Doing something to dead letters needs a choice. Only those are chosen that are there already:
    /// a replay would otherwise meet what came back of its first pages, and publish it for ever.
    async fn chosen(self, all: bool, connection: &mut PgConnection) -> anyhow::Result<Filter> {
        anyhow::ensure!(
            all || !self.ids.is_empty(),
            "name dead letters by id (`watchbook dead list` shows them), or say --all"
        );
        Ok(Filter { failed_before: Some(store::clock(connection).await?), ..self.filter(false) })
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
                let letter = dead_letters::newest(&mut connection, id).await?;
                output::json(&letter.with_context(|| format!("no dead letter has the id {id}"))?)?;
            }
            Action::Replay { which, all, dry_run, json } => {
                let filter = which.chosen(all, &mut connection).await?;
                Replay { config: &config, connection, dry_run }.run(filter, json).await?;
            }
            Action::Discard { which, all } => {
                let filter = which.chosen(all, &mut connection).await?;
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

impl Replayed {
    fn of(letter: &StoredDeadLetter, reason: Option<String>) -> Self {
        Self { id: letter.id, kind: letter.kind.clone(), accepted: reason.is_none(), reason }
    }
}

impl Replay<'_> {
    async fn run(mut self, filter: Filter, json: bool) -> anyhow::Result<()> {
        let mut replayed = Vec::new();
        let ended = self.pages(&filter, &mut replayed).await;
        // What was done before an error is done, and marked.
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
                self.publish(&publisher, &letters, replayed).await?;
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

    /// Publishes dead letters, and marks those that a stream took in the transaction that keeps other
    /// replays from them. A crash between the two publishes them twice, and their identity stores them once.
    async fn publish(
        &mut self,
        publisher: &Publisher,
        letters: &[StoredDeadLetter],
        replayed: &mut Vec<Replayed>,
    ) -> anyhow::Result<()> {
        let mut transaction = self.connection.begin().await?;
        let mine = dead_letters::lock(&mut transaction, letters).await?;
        let mut page = Page { publisher, config: self.config, done: Vec::with_capacity(mine.len()) };
        let published = page.publish(letters.iter().filter(|letter| mine.contains(&letter.key()))).await;
        // Whatever ended it: what is acknowledged must not be published again.
        let accepted = page.done.iter().filter(|(_, letter)| letter.accepted).map(|(key, _)| *key);
        dead_letters::mark(&mut transaction, accepted, Settled::Replayed).await?;
        transaction.commit().await?;
        replayed.extend(page.done.into_iter().map(|(_, letter)| letter));
        published
    }

    /// Why a writer would refuse it now: it is decoded, and tried in a transaction that is rolled back.
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

/// Dead letters on their way to the streams, and what became of each that was decided.
struct Page<'p> {
    publisher: &'p Publisher,
    config: &'p Config,
    done: Vec<(Key, Replayed)>,
}

impl Page<'_> {
    async fn publish<'l>(&mut self, letters: impl Iterator<Item = &'l StoredDeadLetter>) -> anyhow::Result<()> {
        let letters: Vec<_> = letters.collect();
        for &kind in Kind::ALL {
            let of_kind: Vec<_> = letters.iter().copied().filter(|letter| letter.kind == kind.name()).collect();
            if !of_kind.is_empty() {
                self.publish_kind(kind, of_kind).await?;
            }
        }
        Ok(())
    }

    /// All at once, and where one of them may be at fault the others one by one.
    async fn publish_kind(&mut self, kind: Kind, letters: Vec<&StoredDeadLetter>) -> anyhow::Result<()> {
        let messages: Vec<_> = letters.iter().map(|letter| encoded(letter, kind, self.config)).collect();
        let Err(error) = self.publisher.publish_encoded(kind, messages).await else {
            letters.into_iter().for_each(|letter| self.settle(letter, None));
            return Ok(());
        };
        let mut left = Vec::with_capacity(letters.len() - error.acknowledged());
        for (letter, sequence) in letters.into_iter().zip(error.sequences()) {
            match sequence {
                Some(_) => self.settle(letter, None),
                None => left.push(letter),
            }
        }
        if !is_of_one_letter(error.error()) {
            return Err(unacknowledged(kind, left.len(), error.error()));
        }
        self.publish_singly(kind, left, error.into_unacknowledged()).await
    }

    /// `messages` are those of the letters, in the same order.
    async fn publish_singly(
        &mut self,
        kind: Kind,
        letters: Vec<&StoredDeadLetter>,
        messages: Vec<Encoded>,
    ) -> anyhow::Result<()> {
        let mut left = letters.len();
        for (letter, message) in letters.into_iter().zip(messages) {
            match self.publisher.publish_encoded(kind, [message]).await {
                Ok(_) => self.settle(letter, None),
                Err(error) if is_of_one_letter(error.error()) => self.settle(letter, Some(error.error())),
                Err(error) => return Err(unacknowledged(kind, left, error.error())),
            }
            left -= 1;
        }
        Ok(())
    }

    fn settle(&mut self, letter: &StoredDeadLetter, error: Option<&PublishError>) {
        self.done.push((letter.key(), Replayed::of(letter, error.map(PublishError::to_string))));
    }
}

/// Whether an error may be the fault of one letter, and the others be published without it.
fn is_of_one_letter(error: &PublishError) -> bool {
    match error {
        // The subject of a letter may be one that streams took earlier. A batch with such a subject is
        // given up by the server, which does not say why.
        PublishError::StreamMissing { .. } | PublishError::BatchAbandoned { .. } => true,
        PublishError::Closed => false,
        error => !error.is_retryable(),
    }
}

fn unacknowledged(kind: Kind, letters: usize, error: &PublishError) -> anyhow::Error {
    anyhow::anyhow!("{letters} dead letters of kind {kind} were not acknowledged and stay as they are: {error}")
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
fn encoded(letter: &StoredDeadLetter, kind: Kind, config: &Config) -> Encoded {
    let headers = dead_letters::headers_from_json(letter.headers.as_ref());
    // The letter's own id, and not one derived anew: the table keeps microseconds of the stream's nanoseconds.
    let (_, time) = message(letter, kind, config, &headers).replay_identity();
    let of_replay =
        [(REPLAY_ID_HEADER.to_owned(), letter.id.to_string()), (REPLAY_TIME_HEADER.to_owned(), time.to_rfc3339())];
    let kept = headers.iter().filter(|(name, value)| !is_replaced(name) && is_header(name, value));
    let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Headers = kept.chain(of_replay).collect();
    Encoded::new(letter.subject.clone(), letter.payload.clone()).with_headers(headers)
}

/// Whether it can be sent. Some producers write headers that no client of ours would, and the table
/// keeps them as text: without them the record is as it was, with them it could never be published.
fn is_header(name: &str, value: &str) -> bool {
    !name.is_empty() && name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
}

/// Headers that speak to the stream and not of the record: carried on, they would make the stream
/// take the replay for a duplicate, or refuse it.
fn is_replaced(name: &str) -> bool {
    let is = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is("Nats-") || name.eq_ignore_ascii_case(REPLAY_ID_HEADER) || name.eq_ignore_ascii_case(REPLAY_TIME_HEADER)
}
