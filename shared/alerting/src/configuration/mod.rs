//! Turns settings into rules, receivers and routes. Reports all problems at once, each with its key.

mod addresses;
mod builtin;
mod checks;
mod receivers;
mod routes;
mod rules;
mod thresholds;

use std::fmt;
use std::sync::Arc;

use runtime::Config;
use uuid::Uuid;

use crate::receiver::Receiver;
use crate::routing::Route;
use crate::rule::Rule;

pub use builtin::builtin_rules;

/// The checked configuration of alerting: rules, receivers and routes.
#[derive(Debug, Clone)]
pub struct Alerting {
    /// The rules; names are unique.
    pub rules: Vec<Arc<Rule>>,
    /// The receivers; names are unique.
    pub receivers: Vec<Receiver>,
    /// The routes; the first match wins. If the settings have none, one route leads to every receiver of alerts.
    pub routes: Vec<Route>,
}

/// A problem in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `rules.3.threshold` for the fourth rule.
    pub key: String,
    /// The description of the problem.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl Alerting {
    /// Checks the rules, receivers and routes of the settings. Without rules the built-in ones apply. `environment`
    /// looks up the variables that hold secrets.
    ///
    /// # Errors
    /// Returns all problems that were found.
    pub fn of(config: &Config, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let rules = match config.rules.as_slice() {
            [] => rules::check(&builtin_rules(), &mut problems),
            rules => rules::check(rules, &mut problems),
        };
        let receivers = receivers::check(config, environment, &mut problems);
        let routes = routes::check(config, &rules, &receivers, &mut problems);
        if !problems.found.is_empty() {
            return Err(problems.found);
        }
        let mut alerting = Self { rules: rules.into_iter().map(Arc::new).collect(), receivers, routes };
        if alerting.routes.is_empty() {
            let all_receivers: Vec<_> = alerting.notified_receivers().map(str::to_owned).collect();
            if !all_receivers.is_empty() {
                alerting.routes.push(Route::to_all(all_receivers));
            }
        }
        Ok(alerting)
    }

    /// Returns the rules as JSON, for display.
    pub fn describe(&self) -> serde_json::Value {
        self.rules.iter().map(|rule| rule.describe()).collect()
    }

    /// Returns a fingerprint of rules, receivers and routes: it changes when any of them does. Contains no secrets.
    pub fn fingerprint(&self) -> String {
        /// The namespace of fingerprints.
        const NAMESPACE: Uuid = Uuid::from_u128(0x2d0e_54f1_90c7_5a6b_8b1d_6c1f_3a9e_47d3);
        // The Debug output hides secrets.
        let all = format!("{:?}\n{:?}\n{:?}", self.rules, self.receivers, self.routes);
        Uuid::new_v5(&NAMESPACE, all.as_bytes()).simple().to_string()
    }
}

/// Collects problems.
#[derive(Debug, Default)]
struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, key: String, message: impl Into<String>) {
        self.found.push(Problem { key, message: message.into() });
    }
}

#[cfg(test)]
mod tests;
