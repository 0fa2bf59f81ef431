//! `watchbook tail`: follows records live.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use records::subject;
use runtime::Config;

use crate::kind_argument::KindArgument;
use crate::process;

/// Follow records live as they are published, one body per line, until Ctrl-C.
///
/// Subscribes to the subjects directly: records may not be stored yet, and earlier records are not shown. On a terminal
/// each line starts with its subject.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook tail errors --org acme | jq .message")]
pub(crate) struct Tail {
    #[command(flatten)]
    kind: KindArgument,
    /// Show only records of this organization.
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
}

impl Tail {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let bus = process::bus(&config).await?;
        let client = bus.client();
        let filter = subject::filter(bus.prefix(), self.kind.kind, self.org.as_deref());
        let mut messages = client.subscribe(filter.clone()).await?;
        client.flush().await?;
        tracing::info!(subject = filter, "following");
        let watched = std::io::stdout().is_terminal();
        let mut stop = std::pin::pin!(runtime::stop_signal());
        loop {
            let message = tokio::select! {
                signal = &mut stop => {
                    signal?;
                    return Ok(ExitCode::SUCCESS);
                }
                message = messages.next() => message,
            };
            let Some(message) = message else { anyhow::bail!("the connection to NATS was closed") };
            // A body that cannot be decompressed is shown as it is; it will become a dead letter.
            let body = records::body_text(&message.payload, &bus::headers(message.headers.as_ref()))
                .unwrap_or_else(|_| String::from_utf8_lossy(&message.payload));
            let mut out = std::io::stdout().lock();
            let written = if watched {
                // Control characters in a body must not reach the terminal.
                let body = body.replace(|c: char| c.is_control(), " ");
                writeln!(out, "\x1b[2m{}\x1b[0m {body}", message.subject)
            } else {
                out.write_all(body.as_bytes()).and_then(|()| out.write_all(b"\n"))
            };
            // The reader closed the pipe, as in `watchbook tail | head`.
            if written.and_then(|()| out.flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}
