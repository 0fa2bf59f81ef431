//! Routing: which receivers an alert goes to, and which alerts share a notification.

use chrono::TimeDelta;

use crate::configuration::Alerting;
use crate::labels::{self, ALERTNAME};
use crate::matcher::Matcher;
use crate::notification::Labels;
use crate::receiver::Channel;

/// A route whose configuration was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The matchers; all have to match. Without any, every alert matches.
    pub matchers: Vec<Matcher>,
    /// Names of existing receivers, without duplicates.
    pub to: Vec<String>,
    /// Alerts with equal values of these labels share a notification.
    pub group_by: Vec<String>,
    /// How long a notification waits for more alerts of its group; zero for no wait.
    pub group_wait: TimeDelta,
    /// How long until the notification of an alert that still fires is repeated.
    pub repeat_interval: TimeDelta,
}

/// The default of `repeat_interval`.
pub(crate) const REPEAT_INTERVAL: TimeDelta = TimeDelta::hours(4);

/// Returns the default of `group_by`.
pub(crate) fn default_group_by() -> Vec<String> {
    vec![ALERTNAME.to_owned(), records::rollup::ORGANIZATION.to_owned()]
}

impl Route {
    /// Creates a route of all alerts to these receivers.
    pub(crate) fn to_all(to: Vec<String>) -> Self {
        Self {
            matchers: Vec::new(),
            to,
            group_by: default_group_by(),
            group_wait: TimeDelta::zero(),
            repeat_interval: REPEAT_INTERVAL,
        }
    }

    /// Checks whether an alert with these labels matches.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

impl Alerting {
    /// Returns the first route that matches these labels; `None` if no receiver is notified.
    pub fn route(&self, labels: &Labels) -> Option<&Route> {
        self.routes.iter().find(|route| route.matches(labels))
    }

    /// Returns the labels that the alerts of a notification have in common, as one text and as labels. The text is
    /// equal for all notifications of the group to this receiver.
    pub fn group_key(&self, route: &Route, receiver: &str, labels: &Labels) -> (String, Labels) {
        let common: Labels = route
            .group_by
            .iter()
            .filter_map(|name| labels.iter().find(|(label, _)| labels::is_named(label, name)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // Quoted as by Debug, so that no value can pass for another label.
        let pairs: Vec<_> = common.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        (format!("{receiver}:{{{}}}", pairs.join(", ")), common)
    }

    /// Returns the names of the receivers of alerts.
    pub fn notified_receivers(&self) -> impl Iterator<Item = &str> {
        let is_told = |channel: &Channel| !matches!(channel, Channel::Heartbeat(_));
        self.receivers.iter().filter(move |receiver| is_told(&receiver.channel)).map(|receiver| receiver.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn route(matchers: &[&str], to: &str) -> Route {
        let matchers = matchers.iter().map(|matcher| matcher.parse().unwrap()).collect();
        Route { matchers, ..Route::to_all(vec![to.to_owned()]) }
    }

    #[test]
    fn the_first_match_wins() {
        let routes = vec![
            route(&["severity=critical", "organization_id=acme"], "acme"),
            route(&["severity=critical"], "ops"),
            route(&["alertname=~execution-.*"], "runtime"),
        ];
        let alerting = Alerting { rules: Vec::new(), receivers: Vec::new(), routes };
        for (alert, to) in [
            (labels(&[("severity", "critical"), ("organization_id", "acme")]), Some("acme")),
            (labels(&[("severity", "critical"), ("organization_id", "other")]), Some("ops")),
            (labels(&[("severity", "critical")]), Some("ops")),
            (labels(&[("severity", "info"), ("alertname", "execution-x")]), Some("runtime")),
            (labels(&[("severity", "info")]), None),
        ] {
            assert_eq!(alerting.route(&alert).and_then(|route| route.to.first()).map(String::as_str), to, "{alert:?}");
        }
    }

    #[test]
    fn alerts_share_a_notification_that_agree_in_the_labels_of_the_group() {
        let alerting = Alerting { rules: Vec::new(), receivers: Vec::new(), routes: Vec::new() };
        let route = Route { group_by: vec!["alertname".into(), "organization".into()], ..route(&[], "x") };
        let key = |pairs: &[(&str, &str)]| alerting.group_key(&route, "ops", &labels(pairs));
        let one = key(&[("alertname", "a"), ("organization_id", "acme"), ("strategy_id", "1")]);
        assert_eq!(one.0, r#"ops:{alertname="a", organization_id="acme"}"#);
        assert_eq!(one.1, labels(&[("alertname", "a"), ("organization_id", "acme")]));
        assert_eq!(one, key(&[("alertname", "a"), ("organization_id", "acme"), ("strategy_id", "2")]));
        assert_ne!(one.0, key(&[("alertname", "a"), ("organization_id", "other")]).0);
        assert_ne!(
            key(&[("alertname", "a\", organization_id=\"b")]).0,
            key(&[("alertname", "a"), ("organization_id", "b")]).0
        );
        assert_eq!(key(&[]).0, "ops:{}");
    }
}
