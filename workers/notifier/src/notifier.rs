//! The delivery loop: claim, deliver, write, and decide when to do so again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use alerting::notification::Notification;
use alerting::receiver::Receiver;
use bus::{Bus, Signals};
use chrono::Utc;
use futures::FutureExt;
use runtime::{Backoff, Part};
use store::Database;
use store::outbox::Claimed;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::claims::{Attempt, Claims};
use crate::outcome::Outcome;
use crate::receivers::{Delivery, Sender};

/// Interval between polls without a signal, for retries that are due and for signals that were lost.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of concurrent deliveries to all receivers. They mostly wait for the network and cost little.
const AT_ONCE: usize = 32;
/// Time that deliveries in progress get to finish when the process stops.
const STOP_TRIES: Duration = Duration::from_secs(3);
/// Time to write their outcomes after that. Together both stay below `runtime::STOP_BUDGET`.
const STOP_WRITES: Duration = Duration::from_secs(3);

/// The time limits of a notifier.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long delivery is attempted, counted from the creation of the notification. After that it has failed.
    pub deliver_within: Duration,
    /// Time limit of one attempt.
    pub request_timeout: Duration,
    /// How long a claim lasts. After a crash its notifications wait this long. An attempt never outlives its claim.
    pub lease: Duration,
    /// The URL of Watchbook's page, for receivers that show a link. Empty if there is none.
    pub external_url: String,
}

impl Settings {
    /// Returns the settings of the configuration.
    pub fn of(config: &runtime::Config) -> Self {
        Self {
            deliver_within: config.alerts.deliver_within,
            request_timeout: config.alerts.request_timeout,
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deliver_within: Duration::from_secs(24 * 60 * 60),
            request_timeout: Duration::from_secs(10),
            lease: Duration::from_secs(60),
            external_url: String::new(),
        }
    }
}

/// Delivers the notifications of the outbox. Any number of notifiers may run at once.
#[derive(Debug)]
pub struct Notifier {
    /// Identifies this process among all notifiers: host name and process id.
    pub name: String,
    /// The database that holds the outbox.
    pub database: Database,
    /// Carries the signal for new rows in the outbox ([`Signals::OUTBOX`]), and serves receivers on NATS.
    pub bus: Bus,
    /// The receivers of the current configuration. A notification for a receiver that is not among them is retried
    /// later.
    pub receivers: watch::Receiver<Arc<Vec<Receiver>>>,
    /// The time limits.
    pub settings: Settings,
    /// Reports the state of the notifier for `/readyz`.
    pub health: Part,
}

impl Notifier {
    /// Delivers until `stop`. Waits out outages; only `stop` ends it, within seconds.
    pub async fn run(self, stop: CancellationToken) {
        let sender = Sender::new(
            Some(self.bus.clone()),
            // An attempt that outlived its claim could overtake the next notifier's attempt.
            self.settings.request_timeout.min(self.settings.lease),
            self.settings.external_url.clone(),
        );
        let mut work = Work {
            claims: Claims::new(self.name, self.database, self.settings.clone()),
            sender,
            receivers: self.receivers,
            lease: self.settings.lease,
            health: self.health,
            tries: JoinSet::new(),
            under_way: HashMap::new(),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work.run_until_error(&self.bus) => {}
        }
        work.shut_down().await;
    }
}

struct Work {
    claims: Claims,
    sender: Sender,
    receivers: watch::Receiver<Arc<Vec<Receiver>>>,
    lease: Duration,
    health: Part,
    tries: JoinSet<(Outcome, Duration)>,
    under_way: HashMap<Id, Claimed>,
}

impl Work {
    /// Runs for ever. Cancel safe.
    async fn run_until_error(&mut self, bus: &Bus) {
        let mut signals = bus.signals(Signals::OUTBOX).await;
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        loop {
            match self.run_once().await {
                Ok(()) => {
                    backoff.reset();
                    failing = false;
                    self.health.active();
                }
                Err(error) => {
                    self.claims.disconnect();
                    self.health.failing(format!("cannot read or write the outbox in Postgres: {error}"));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot read or write the outbox; retrying until it succeeds");
                    }
                    sleep(backoff.next_wait()).await;
                    continue;
                }
            }
            tokio::select! {
                // One poll serves all signals received so far.
                _ = signals.next() => while signals.next().now_or_never().is_some() {},
                () = sleep(POLL_EVERY) => {}
                Some(ended) = self.tries.join_next_with_id() => self.ended(ended),
            }
        }
    }

    /// Writes outcomes, then claims and starts new deliveries. Outcomes come first, because the next notification
    /// of a group is due only after that.
    async fn run_once(&mut self) -> store::Result<()> {
        while let Some(ended) = self.tries.try_join_next_with_id() {
            self.ended(ended);
        }
        self.claims.write().await?;
        let free = AT_ONCE.saturating_sub(self.tries.len());
        if free > 0 {
            let under_way: Vec<String> = self.under_way.values().map(|claim| claim.receiver.clone()).collect();
            // Taken before the query, so that the lease ends here before it ends in the database.
            let asked = Instant::now();
            for claim in self.claims.claim(u32::try_from(free).unwrap_or(u32::MAX), &under_way).await? {
                self.start(claim, asked);
            }
        }
        self.claims.maintain().await
    }

    fn start(&mut self, claim: Claimed, asked: Instant) {
        let receivers = self.receivers.borrow().clone();
        let (sender, claimed, lease) = (self.sender.clone(), claim.clone(), self.lease);
        let task = self.tries.spawn(async move {
            let started = Instant::now();
            let left = lease.saturating_sub(started.duration_since(asked));
            let outcome = if left.is_zero() {
                // Nothing is sent: another notifier may already deliver it.
                Outcome::retry("the claim expired before the attempt began")
            } else {
                let late = || Outcome::retry("the claim expired before the receiver answered");
                timeout(left, attempt(&sender, &receivers, &claimed, asked)).await.unwrap_or_else(|_| late())
            };
            (outcome, started.elapsed())
        });
        self.under_way.insert(task.id(), claim);
    }

    fn ended(&mut self, ended: Result<(Id, (Outcome, Duration)), JoinError>) {
        let (id, (outcome, took)) = ended.unwrap_or_else(|error| {
            // A panic must not lose the notification.
            (error.id(), (Outcome::retry("the attempt panicked"), Duration::ZERO))
        });
        if let Some(claim) = self.under_way.remove(&id) {
            self.claims.ended(Attempt { claim, outcome, took });
        }
    }

    /// Waits for deliveries in progress, writes their outcomes and releases the remaining claims. Each step has a
    /// time limit.
    async fn shut_down(&mut self) {
        let tries = async {
            while let Some(ended) = self.tries.join_next_with_id().await {
                self.ended(ended);
            }
        };
        if timeout(STOP_TRIES, tries).await.is_err() {
            self.tries.abort_all();
            // Aborted deliveries have no outcome: their claims are released.
            self.under_way.clear();
        }
        let writes = async {
            self.claims.write().await?;
            self.claims.release().await
        };
        match timeout(STOP_WRITES, writes).await {
            Ok(Ok(0)) => {}
            Ok(Ok(released)) => {
                tracing::info!(released, "aborted deliveries and released their claims; another notifier repeats them")
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot write outcomes; their claims will expire"),
            Err(_) => tracing::warn!("cannot write outcomes in time; their claims will expire"),
        }
    }
}

/// Makes one attempt to deliver a claimed row of the outbox.
async fn attempt(sender: &Sender, receivers: &[Receiver], claim: &Claimed, asked: Instant) -> Outcome {
    let Some(receiver) = receivers.iter().find(|receiver| receiver.name == claim.receiver) else {
        return Outcome::retry(format!("the configuration has no receiver named {}", claim.receiver));
    };
    let notification = match serde_json::from_value::<Notification>(claim.notification.clone()) {
        Ok(notification) => notification,
        Err(error) => return Outcome::give_up(format!("cannot decode the notification in the outbox: {error}")),
    };
    let age = Duration::try_from_secs_f64(claim.age_seconds).unwrap_or_default() + asked.elapsed();
    let delivery =
        Delivery { id: claim.id, notification: &notification, created_at: claim.created_at, age, now: Utc::now() };
    sender.send(receiver, delivery).await
}
