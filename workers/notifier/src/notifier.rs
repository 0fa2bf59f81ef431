//! The life of a notifier: claim, try, write; and when to do that again.

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

use crate::claims::{Claims, Tried};
use crate::outcome::Outcome;
use crate::receivers::{Delivery, Sender};

/// How often is looked without a signal: for retries that are due, and for signals that were lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Tries under way at once, to all receivers. They wait for others and cost next to nothing.
const AT_ONCE: usize = 32;
/// What tries that are under way get to end when the process stops.
const STOP_TRIES: Duration = Duration::from_secs(3);
/// What their outcomes get to be written then. Both together stay below `runtime::STOP_BUDGET`.
const STOP_WRITES: Duration = Duration::from_secs(3);

/// How a notifier behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From a notification's writing: after that it is given up.
    pub deliver_within: Duration,
    /// What one try may take.
    pub request_timeout: Duration,
    /// How long a claim holds: after a crash its notifications wait for so long. A try never outlives it.
    pub lease: Duration,
    /// Where Watchbook's page is, for receivers that show a link. Empty where there is none.
    pub external_url: String,
}

impl Settings {
    /// As they are configured.
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

/// Delivers what is in the outbox. Any number of them run at once.
#[derive(Debug)]
pub struct Notifier {
    /// Names this process among all notifiers: host and process id.
    pub name: String,
    /// Where the outbox is.
    pub database: Database,
    /// Where it hears that there is something in the outbox ([`Signals::OUTBOX`]), and for receivers on NATS.
    pub bus: Bus,
    /// Whom there is, now. What was claimed for nobody that is in it is tried again later.
    pub receivers: watch::Receiver<Arc<Vec<Receiver>>>,
    /// How.
    pub settings: Settings,
    /// How it tells how it is.
    pub health: Part,
}

impl Notifier {
    /// Delivers until `stop`. Outages are waited out; nothing but `stop` ends this, and then it takes seconds.
    pub async fn run(self, stop: CancellationToken) {
        let sender = Sender::new(
            Some(self.bus.clone()),
            // A try that outlived its claim could overtake what another notifier does with it.
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
            () = work.go_on(&self.bus) => {}
        }
        work.wind_up().await;
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
    /// Never ends. May be dropped wherever it waits.
    async fn go_on(&mut self, bus: &Bus) {
        let mut signals = bus.signals(Signals::OUTBOX).await;
        let mut backoff = Backoff::for_server();
        let mut failing = false;
        loop {
            match self.turn().await {
                Ok(()) => {
                    backoff.reset();
                    failing = false;
                    self.health.active();
                }
                Err(error) => {
                    self.claims.disconnect();
                    self.health.failing(format!("Postgres does not answer: {error}"));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the outbox cannot be read or written; trying again until it can");
                    }
                    sleep(backoff.next_wait()).await;
                    continue;
                }
            }
            tokio::select! {
                // One look answers all signals that have come until then.
                _ = signals.next() => while signals.next().now_or_never().is_some() {},
                () = sleep(LOOK_EVERY) => {}
                Some(ended) = self.tries.join_next_with_id() => self.ended(ended),
            }
        }
    }

    /// Outcomes first: what comes after a delivered one of its group is free only then.
    async fn turn(&mut self) -> store::Result<()> {
        while let Some(ended) = self.tries.try_join_next_with_id() {
            self.ended(ended);
        }
        self.claims.write().await?;
        let free = AT_ONCE.saturating_sub(self.tries.len());
        if free > 0 {
            let under_way: Vec<String> = self.under_way.values().map(|claim| claim.receiver.clone()).collect();
            // Taken before the question, so that our lease is over before the database's.
            let asked = Instant::now();
            for claim in self.claims.claim(u32::try_from(free).unwrap_or(u32::MAX), &under_way).await? {
                self.start(claim, asked);
            }
        }
        self.claims.keep_house().await
    }

    fn start(&mut self, claim: Claimed, asked: Instant) {
        let receivers = self.receivers.borrow().clone();
        let (sender, claimed, lease) = (self.sender.clone(), claim.clone(), self.lease);
        let task = self.tries.spawn(async move {
            let started = Instant::now();
            let left = lease.saturating_sub(started.duration_since(asked));
            let outcome = if left.is_zero() {
                // Nothing is sent: somebody else may be at it.
                Outcome::retry("the claim was over before the try began")
            } else {
                let late = || Outcome::retry("the claim was over before the receiver answered");
                timeout(left, attempt(&sender, &receivers, &claimed, asked)).await.unwrap_or_else(|_| late())
            };
            (outcome, started.elapsed())
        });
        self.under_way.insert(task.id(), claim);
    }

    fn ended(&mut self, ended: Result<(Id, (Outcome, Duration)), JoinError>) {
        let (id, (outcome, took)) = ended.unwrap_or_else(|error| {
            // A panic of ours is no reason to lose a notification.
            (error.id(), (Outcome::retry("the try broke off"), Duration::ZERO))
        });
        if let Some(claim) = self.under_way.remove(&id) {
            self.claims.ended(Tried { claim, outcome, took });
        }
    }

    /// Lets tries end, writes what came of them and lets go of the rest, each for a bounded time.
    async fn wind_up(&mut self) {
        let tries = async {
            while let Some(ended) = self.tries.join_next_with_id().await {
                self.ended(ended);
            }
        };
        if timeout(STOP_TRIES, tries).await.is_err() {
            self.tries.abort_all();
            // Those that were broken off have no outcome: the claim is given back instead.
            self.under_way.clear();
        }
        let writes = async {
            self.claims.write().await?;
            self.claims.release().await
        };
        match timeout(STOP_WRITES, writes).await {
            Ok(Ok(0)) => {}
            Ok(Ok(released)) => tracing::info!(released, "tries were broken off; they begin anew elsewhere"),
            Ok(Err(error)) => tracing::warn!(%error, "outcomes could not be written; their claims run out"),
            Err(_) => tracing::warn!("outcomes could not be written in time; their claims run out"),
        }
    }
}

/// One try, from what stands in the outbox.
async fn attempt(sender: &Sender, receivers: &[Receiver], claim: &Claimed, asked: Instant) -> Outcome {
    let Some(receiver) = receivers.iter().find(|receiver| receiver.name == claim.receiver) else {
        return Outcome::retry(format!("no receiver called {} in the configuration", claim.receiver));
    };
    let notification = match serde_json::from_value::<Notification>(claim.notification.clone()) {
        Ok(notification) => notification,
        Err(error) => return Outcome::give_up(format!("what the outbox holds is no notification: {error}")),
    };
    let age = Duration::try_from_secs_f64(claim.age_seconds).unwrap_or_default() + asked.elapsed();
    let delivery =
        Delivery { id: claim.id, notification: &notification, created_at: claim.created_at, age, now: Utc::now() };
    sender.send(receiver, delivery).await
}
