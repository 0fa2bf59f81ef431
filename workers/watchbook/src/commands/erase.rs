//! `watchbook erase`: erases the records of a user or a strategy.

use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use clap::{Args, ValueEnum};
use retention::RunLease;
use retention::erase;
use runtime::Config;
use serde_json::json;
use store::erasures::Erasable;
use store::partition_removal;

use crate::{bench, internal_records, output, process};

/// How long to wait while another process holds the retention lease. The erasure request is stored either way, and the
/// retention worker executes it.
const ACT_WITHIN: Duration = Duration::from_secs(30);

/// Erase the personal data of a user, or the executions of a strategy.
///
/// Removes the execution records of the user or strategy. For a user it also blanks the personal fields of their events
/// and errors, and their name and e-mail address in the directory. Records under a hold stay until the hold is released
/// and are then erased automatically. An interrupted erasure is resumed by the retention worker. A directory record
/// with `deleted: true` has the same effect.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook erase user user-17 --org acme --dry-run")]
pub(crate) struct Erase {
    /// Kind of entity to erase.
    entity: Entity,
    /// Id of the user or strategy.
    id: String,
    /// Erase only in records of this organization.
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Only report how many execution records would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// Print JSON.
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
                "`{org}` is not an organization: expected 1 to 64 characters of A-Z a-z 0-9 _ -"
            );
        }
        let entity = Erasable::from(self.entity);
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = partition_removal::session(&database).await?;
        let (now, org) = (Utc::now(), self.org.as_deref());
        if self.dry_run {
            let (executions, held) = erase::preview(&mut connection, entity, &self.id, org, now).await?;
            if self.json {
                output::json(&json!({ "executions": executions, "held": held }))?;
            } else {
                output::say(format_args!(
                    "{} execution records would be removed; holds keep {}",
                    output::grouped(executions),
                    output::grouped(held)
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let Some(run_lease) = RunLease::acquire(&database, ACT_WITHIN).await? else {
            let erasure = erase::request(&mut connection, entity, &self.id, org, &self.by, now).await?;
            eprintln!("Another process is running retention. The retention worker will execute this erasure.");
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
        let ended = run_lease.run_while_held(work).await;
        progress.finish_and_clear();
        run_lease.release().await;
        let Some(ended) = ended.transpose()?.and_then(|ended| ended.into_iter().next()) else {
            anyhow::bail!("the retention lease was lost; the retention worker continues erasure {}", erasure.id)
        };
        internal_records::publish(&config, &mut connection).await;
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
                if ended.state == "held" { "; held records are erased when the hold is released" } else { "" }
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
