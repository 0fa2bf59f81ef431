//! `watchbook erase`: what is stored of a user or a strategy goes.

use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use clap::{Args, ValueEnum};
use retention::Acting;
use retention::erase;
use runtime::Config;
use serde_json::json;
use store::days;
use store::erasures::Erasable;

use crate::{bench, output, own_records, process};

/// How long somebody else's work is waited for. The erasure is written either way, and the worker does it.
const ACT_WITHIN: Duration = Duration::from_secs(30);

/// Erase what is stored of a user or a strategy.
///
/// Removes its execution records. Of a user, what is personal in their events and errors is blanked as well, and their
/// name and address in the directory. What a hold keeps stays until its release, and goes then by itself. Interrupted,
/// it goes on. A record of the directory with `deleted: true` does the same.
#[derive(Debug, Args)]
pub(crate) struct Erase {
    /// What.
    entity: Entity,
    /// Which one.
    id: String,
    /// Only in this organization's records.
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Only say how many execution records would go.
    #[arg(long)]
    dry_run: bool,
    /// Who, where not the user of this terminal.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Entity {
    User,
    Strategy,
}

impl From<Entity> for Erasable {
    fn from(entity: Entity) -> Self {
        match entity {
            Entity::User => Self::User,
            Entity::Strategy => Self::Strategy,
        }
    }
}

impl Erase {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let is_id = |text: &str| !text.is_empty() && text.len() <= records::limits::ID_BYTES;
        anyhow::ensure!(is_id(&self.id), "an id is 1 to 256 bytes");
        if let Some(org) = &self.org {
            anyhow::ensure!(
                records::subject::is_organization(org),
                "`{org}` is no organization: 1 to 64 of A-Z a-z 0-9 _ -"
            );
        }
        let entity = Erasable::from(self.entity);
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = days::session(&database).await?;
        let (now, org) = (Utc::now(), self.org.as_deref());
        if self.dry_run {
            let (executions, held) = erase::preview(&mut connection, entity, &self.id, org, now).await?;
            if self.json {
                output::json(&json!({ "executions": executions, "held": held }))?;
            } else {
                output::say(format_args!(
                    "{} execution records would go; holds keep {}",
                    output::grouped(executions),
                    output::grouped(held)
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let Some(acting) = Acting::take(&database, ACT_WITHIN).await? else {
            let erasure = erase::request(&mut connection, entity, &self.id, org, &self.by, now).await?;
            eprintln!("Another process is at work; the retention worker does this after it.");
            output::say(erasure.id);
            return Ok(ExitCode::SUCCESS);
        };
        let erasure = erase::request(&mut connection, entity, &self.id, org, &self.by, now).await?;
        let progress = bench::progress();
        let mut done = 0;
        let work = erase::execute(&mut connection, vec![erasure.clone()], |records| {
            done += records;
            progress.set_message(format!("{} records", output::grouped(done)));
        });
        let ended = acting.during(work).await;
        progress.finish_and_clear();
        acting.release().await;
        let Some(ended) = ended.transpose()?.and_then(|ended| ended.into_iter().next()) else {
            anyhow::bail!("the right to act was lost; the retention worker goes on with erasure {}", erasure.id)
        };
        own_records::publish(&config, &mut connection).await;
        if self.json {
            output::json(&ended)?;
        } else {
            let number = |number: i64| output::grouped(u64::try_from(number).unwrap_or_default());
            output::say(format_args!(
                "{} {}: {} execution records removed, {} events and errors blanked{}",
                entity.name(),
                self.id,
                number(ended.executions),
                number(ended.blanked),
                if ended.state == "held" { "; the rest is held, and goes when it is released" } else { "" }
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
