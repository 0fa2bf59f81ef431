//! `watchbook publish`: publishes NDJSON to JetStream.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use publisher::{PublishError, Publisher};
use records::{Kind, limits};
use runtime::Config;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

use crate::kind_argument::KindArgument;
use crate::{output, process};

/// Lines published at once: the size of a JetStream atomic batch.
const BATCH_LINES: usize = 1_000;
/// Bytes of lines held in memory at once.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Refused lines shown one by one; the rest are only counted.
const SHOWN_REFUSALS: usize = 20;

/// Publish records from NDJSON, each acknowledged by JetStream.
///
/// Each line is one JSON object and is checked as the writers will check it. A line that would become a dead letter is
/// reported and not published; the others are. Exits with 1 if any line was refused.
#[derive(Debug, Args)]
#[command(after_help = "Example: echo '{\"event_type\":\"build.finished\"}' | watchbook publish events --org acme")]
pub(crate) struct Publish {
    #[command(flatten)]
    kind: KindArgument,
    /// Organization of the records. Default: none.
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// File to read, or `-` for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
}

impl Publish {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let input: Box<dyn AsyncBufRead + Unpin> = if self.file.as_os_str() == "-" {
            Box::new(BufReader::new(tokio::io::stdin()))
        } else {
            let file =
                tokio::fs::File::open(&self.file).await.with_context(|| format!("open {}", self.file.display()))?;
            Box::new(BufReader::new(file))
        };
        let bus = process::bus(&config).await?;
        let publisher = process::publisher(&config, &bus)?;
        let mut lines = Lines {
            kind: self.kind.kind,
            organization: self.org,
            publisher,
            accepted: 0,
            refused: 0,
            progress: progress(),
        };
        let published = lines.publish(input).await;
        lines.progress.finish_and_clear();
        output::say(format_args!("{} accepted, {} refused", lines.accepted, lines.refused));
        published.map_err(|error| match bus.refusals().as_slice() {
            [] => error,
            refusals => error.context(format!("the server refused: {}", refusals.join("; "))),
        })?;
        Ok(if lines.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

struct Lines {
    kind: Kind,
    organization: Option<String>,
    publisher: Publisher,
    accepted: usize,
    refused: usize,
    progress: ProgressBar,
}

impl Lines {
    async fn publish(&mut self, mut input: Box<dyn AsyncBufRead + Unpin>) -> anyhow::Result<()> {
        let (mut batch, mut bytes, mut number) = (Vec::new(), 0, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            number += 1;
            let read = read_line(&mut input, &mut line).await.with_context(|| format!("read line {number}"))?;
            if read == 0 {
                return self.flush(std::mem::take(&mut batch)).await;
            }
            let body = line.trim_ascii();
            if body.is_empty() {
                continue;
            }
            match self.publisher.prepare_json(self.kind, self.organization.as_deref(), body) {
                Ok(prepared) => {
                    bytes += prepared.message.size();
                    batch.push(prepared.message);
                }
                Err(PublishError::Rejected(reject)) => {
                    self.refused += 1;
                    if self.refused <= SHOWN_REFUSALS {
                        self.progress.suspend(|| eprintln!("line {number}: {reject}"));
                    }
                }
                Err(error) => return Err(error).with_context(|| format!("line {number}")),
            }
            if batch.len() >= BATCH_LINES || bytes >= BATCH_BYTES {
                bytes = 0;
                self.flush(std::mem::take(&mut batch)).await?;
            }
        }
    }

    async fn flush(&mut self, batch: Vec<publisher::Encoded>) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let count = batch.len();
        match self.publisher.publish_encoded(self.kind, batch).await {
            Ok(_) => self.accepted += count,
            Err(error) => {
                self.accepted += error.acknowledged();
                let missing = count - error.acknowledged();
                return Err(anyhow::anyhow!("{missing} records were not acknowledged: {}", error.error()));
            }
        }
        self.progress.set_position(self.accepted as u64);
        Ok(())
    }
}

/// Reads one line and keeps at most twice the size of a message; the rest is discarded, since the line will be refused.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut read = 0;
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok(read);
        }
        let (taken, ended) = match available.iter().position(|b| *b == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        let room = (2 * limits::MESSAGE_BYTES).saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        input.consume(taken);
        read += taken;
        if ended {
            return Ok(read);
        }
    }
}

fn progress() -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} records acknowledged, {per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
