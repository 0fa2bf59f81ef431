//! The lifecycle of the alert worker: wait for the lease, evaluate while it is held, release it.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{gauge, histogram};
use alerting::Alerting;
use alerting::rule_engine::Scope;
use bus::{Bus, Signals};
use chrono::{DateTime, TimeDelta, Utc};
use publisher::Publisher;
use runtime::{Backoff, Config, Part};
use store::rollups::StoredMinute;
use store::{Database, Lease, PgConnection};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::canary::Canary;
use crate::entities::Entities;
use crate::evaluator::{CycleOutcome, Evaluator, EvaluatorError, SAVE_GROUPS_EVERY};
use crate::ingest::{Ingest, Lags};
use crate::loading::RollupObserver;
use crate::metrics;

/// The signal for new roll-ups.
const ROLLUPS: &str = "rollups";
/// How often the health of entities is assessed.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// How often the evaluator and stored history are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// The timeout of an evaluation cycle. A cycle takes milliseconds; one that takes this long has lost its connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The timeout of opening an evaluator, which reads as far back as rules look: at most a day of many groups.
const OPEN_WITHIN: Duration = Duration::from_secs(300);
/// If the clock jumps by more than this, windows are loaded again.
const CLOCK_JUMP: TimeDelta = TimeDelta::seconds(60);
/// How long inactive alerts, transitions and ended silences are kept.
const HISTORY_RETENTION: TimeDelta = TimeDelta::days(90);
/// How long a silent entity is kept before it counts as removed: containers come and go.
const HEALTH_RETENTION: TimeDelta = TimeDelta::days(7);

/// The rules in force in this process, and the problem of a file that should have replaced them.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Rules, receivers and routes.
    pub alerting: Arc<Alerting>,
    /// When they were loaded.
    pub loaded_at: DateTime<Utc>,
    /// The problem of the current file, and since when it exists.
    pub problem: Option<(String, DateTime<Utc>)>,
}

/// The settings of the worker.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often everything is evaluated, with or without new roll-ups.
    pub tick: Duration,
    /// How long to wait for further signals before new roll-ups are evaluated.
    pub debounce: Duration,
    /// The longest wait from the first signal to the evaluation.
    pub debounce_at_most: Duration,
    /// The maximum number of groups of a rule.
    pub max_groups: usize,
    /// The number of notifications per minute above which people get a digest.
    pub storm_after: u32,
    /// How often a canary is sent, if there is a heartbeat receiver.
    pub canary_every: Duration,
    /// How long a canary may take.
    pub canary_within: Duration,
    /// The thresholds for the health of entities.
    pub health: runtime::config::HealthThresholds,
}

impl Settings {
    /// Takes the settings from the configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            tick: config.alerts.tick,
            debounce: config.alerts.debounce,
            debounce_at_most: config.alerts.debounce_at_most,
            max_groups: config.alerts.max_groups,
            storm_after: config.alerts.storm_after,
            canary_every: config.alerts.canary_every,
            canary_within: config.alerts.canary_within,
            health: config.health.clone(),
        }
    }
}

/// Evaluates the rules.
#[derive(Debug)]
pub struct AlertWorker {
    /// The name of this process, for display.
    pub name: String,
    /// NATS, for signals and announcements.
    pub bus: Bus,
    /// The database.
    pub database: Database,
    /// Publishes canaries.
    pub publisher: Publisher,
    /// The rules in force; can change at any time.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// The settings.
    pub settings: Settings,
    /// Reports the health of this part of the process.
    pub health: Part,
}

/// Why a session ended.
enum End {
    Stopped,
    /// The rules have changed.
    NewRules,
}

impl AlertWorker {
    /// The name of the lease. There is one for each database, whatever prefixes write to it, because counts and alerts
    /// do not distinguish prefixes.
    pub const LEASE: &str = "alerts";

    /// Evaluates until `stop`. Waits out outages; only `stop` ends it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !stop.is_cancelled() {
            let standing_by = || {
                tracing::info!("another process evaluates the alerts; standing by");
                self.health.standby();
            };
            match Lease::wait(&self.database, Self::LEASE, standing_by, &stop).await {
                Ok(Some(lease)) => {
                    backoff.reset();
                    failing = false;
                    self.work_with(lease, &stop).await;
                }
                Ok(None) => return,
                Err(error) => {
                    self.health.failing(format!("Postgres does not answer: {error}"));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot request the lease on the alerts; retrying");
                    }
                    pause(backoff.next_wait(), &stop).await;
                }
            }
        }
    }

    /// Evaluates while the lease is held.
    async fn work_with(&mut self, lease: Lease, stop: &CancellationToken) {
        tracing::info!("evaluating the alerts");
        gauge!(metrics::ACTIVE).set(1.0);
        let held = stop.child_token();
        let keeper = tokio::spawn(lease.keep(held.clone()));
        // Outlives sessions, so that a new session does not forget how long the lag has been unknown.
        let (lags, _follower) = Ingest::follow(self.bus.clone(), self.database.clone());
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        while !held.is_cancelled() {
            let opened = Instant::now();
            let ended = tokio::select! {
                // An unanswered query must not block the shutdown.
                () = held.cancelled() => break,
                ended = self.session(lags.clone()) => ended,
            };
            match ended {
                Ok(End::Stopped) => break,
                Ok(End::NewRules) => {}
                Err(error) => {
                    if opened.elapsed() > ANSWER_WITHIN {
                        backoff.reset();
                        failing = false;
                    }
                    self.health.failing(error.to_string());
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot evaluate the alerts; retrying");
                    }
                    pause(backoff.next_wait(), &held).await;
                }
            }
        }
        held.cancel();
        // It ends by the token. A panic in it is reported by the panic hook.
        let _ = keeper.await;
        gauge!(metrics::ACTIVE).set(0.0);
    }

    /// Runs from opening an evaluator until it fails or the rules change.
    async fn session(&mut self, mut lags: watch::Receiver<Lags>) -> Result<End, EvaluatorError> {
        let mut connection = self.database.connect("alerts").await?;
        let rules = self.rules.borrow_and_update().clone();
        // Subscribe before loading: later roll-ups are signalled, earlier ones are loaded.
        let mut signals = self.bus.signals(ROLLUPS).await;
        within(ANSWER_WITHIN, self.record_rules(&mut connection, &rules)).await?;
        let now = Utc::now();
        let settings = &self.settings;
        let mut entities = Entities::new(settings.health.clone(), settings.max_groups);
        let (groups, storm_after) = (settings.max_groups, settings.storm_after);
        let evaluator =
            Evaluator::open(&mut connection, rules.alerting.clone(), groups, storm_after, now, &mut entities);
        let mut evaluator = within(OPEN_WITHIN, evaluator).await?;
        within(ANSWER_WITHIN, entities.load_known(&mut connection)).await?;
        let mut canary = Canary::new(self.publisher.clone(), settings.canary_every, settings.canary_within);
        let (mut health_due, mut groups_due) = (Instant::now(), now);
        let mut prune_due = Instant::now() + PRUNE_EVERY;
        let mut tick = interval(settings.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clock = (Utc::now(), Instant::now());
        let mut debounce = Debounce::new(settings.debounce, settings.debounce_at_most);
        self.health.active();
        loop {
            let scope = tokio::select! {
                biased;
                changed = self.rules.changed() => {
                    if changed.is_err() {
                        return Ok(End::Stopped);
                    }
                    let newest = self.rules.borrow().clone();
                    if !Arc::ptr_eq(&newest.alerting, &rules.alerting) {
                        return Ok(End::NewRules);
                    }
                    within(ANSWER_WITHIN, self.record_rules(&mut connection, &newest)).await?;
                    continue;
                }
                _ = tick.tick() => Scope::All,
                () = debounce.due() => Scope::Touched,
                _ = next_signal(&mut signals) => {
                    debounce.signalled(Instant::now());
                    continue;
                }
            };
            debounce.done();
            let started = Instant::now();
            let now = Utc::now();
            if ((now - clock.0) - TimeDelta::from_std(started - clock.1).unwrap_or_default()).abs() > CLOCK_JUMP {
                return Err(EvaluatorError::ClockSet);
            }
            clock = (now, started);
            for (kind, lag) in lags.borrow_and_update().iter() {
                evaluator.engine.set_lag(*kind, lag.clone());
            }
            let outcome = within(ANSWER_WITHIN, async {
                let observers = Observers { canary: &mut canary, entities: &mut entities };
                let outcome = evaluator.evaluate_and_commit(&mut connection, now, scope, observers).await?;
                let pinged = canary.ping(&mut connection, &rules.alerting).await?;
                if started >= health_due {
                    entities.update_health(&mut connection, &self.bus, &evaluator.engine, now).await?;
                    health_due = started + HEALTH_EVERY;
                }
                Ok(CycleOutcome { has_notifications: outcome.has_notifications || pinged })
            })
            .await?;
            if outcome.has_notifications {
                self.bus.raise(Signals::OUTBOX);
            }
            canary.send(&rules.alerting);
            histogram!(metrics::EVALUATION).record(started.elapsed().as_secs_f64());
            self.health.progressed();
            if started >= prune_due {
                evaluator.prune(now);
                entities.forget(now, HEALTH_RETENTION);
                within(ANSWER_WITHIN, async {
                    store::alerts::remove_quiet(&mut connection, now - HISTORY_RETENTION).await?;
                    store::alerts::remove_history(&mut connection, now - HISTORY_RETENTION).await?;
                    store::silences::remove_ended(&mut connection, now - HISTORY_RETENTION).await?;
                    store::health::forget(&mut connection, now - HEALTH_RETENTION).await?;
                    if now >= groups_due {
                        evaluator.save_known_groups(&mut connection, now).await?;
                        groups_due = now + SAVE_GROUPS_EVERY;
                    }
                    Ok(())
                })
                .await?;
                prune_due = started + PRUNE_EVERY;
            }
        }
    }

    /// Stores which rules are in force in this process.
    async fn record_rules(&self, connection: &mut PgConnection, rules: &Rules) -> Result<(), EvaluatorError> {
        let settings = store::alerts::SettingsRow {
            rules: rules.alerting.describe(),
            fingerprint: rules.alerting.fingerprint(),
            loaded_at: rules.loaded_at,
            loaded_by: self.name.clone(),
            problem: rules.problem.as_ref().map(|(problem, _)| problem.clone()),
            problem_at: rules.problem.as_ref().map(|(_, at)| *at),
        };
        Ok(store::alerts::set_settings(connection, &settings).await?)
    }
}

/// The observers of the evaluator's roll-ups.
struct Observers<'b> {
    canary: &'b mut Canary,
    entities: &'b mut Entities,
}

impl RollupObserver for Observers<'_> {
    fn lookback(&self) -> TimeDelta {
        self.entities.lookback()
    }

    fn observe(&mut self, minute: &StoredMinute, new_at: Option<DateTime<Utc>>) {
        self.canary.observe(minute);
        self.entities.observe(minute, new_at);
    }
}

/// Debounces signals of new roll-ups: an evaluation is due after a quiet moment, or after a maximum wait. So a burst
/// is evaluated at its end and not at its first failures.
#[derive(Debug)]
struct Debounce {
    quiet: Duration,
    at_most: Duration,
    first: Option<Instant>,
    due: Option<Instant>,
}

impl Debounce {
    fn new(quiet: Duration, at_most: Duration) -> Self {
        Self { quiet, at_most, first: None, due: None }
    }

    fn signalled(&mut self, now: Instant) {
        let first = *self.first.get_or_insert(now);
        self.due = Some((now + self.quiet).min(first + self.at_most));
    }

    fn done(&mut self) {
        self.first = None;
        self.due = None;
    }

    /// Resolves when an evaluation is due; never if there was no signal.
    async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

async fn next_signal(signals: &mut Signals) {
    if signals.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Bounds a wait: if the network drops packets, no error ever ends a connection, and the worker would wait forever.
async fn within<T>(
    bound: Duration,
    work: impl Future<Output = Result<T, EvaluatorError>>,
) -> Result<T, EvaluatorError> {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done,
        Err(_) => {
            let words = format!("no answer within {} s", bound.as_secs());
            Err(EvaluatorError::Store(store::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words))))
        }
    }
}

async fn pause(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_judged_at_its_end_but_not_for_ever() {
        let (quiet, at_most) = (Duration::from_millis(150), Duration::from_millis(400));
        let mut debounce = Debounce::new(quiet, at_most);
        let start = Instant::now();
        assert_eq!(debounce.due, None);
        debounce.signalled(start);
        assert_eq!(debounce.due, Some(start + quiet));
        debounce.signalled(start + Duration::from_millis(100));
        assert_eq!(debounce.due, Some(start + Duration::from_millis(250)));
        debounce.signalled(start + Duration::from_millis(390));
        assert_eq!(debounce.due, Some(start + at_most));
        debounce.done();
        assert_eq!(debounce.due, None);
    }
}
