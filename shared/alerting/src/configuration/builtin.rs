//! The built-in rules, which apply if the settings have none.

use std::time::Duration;

use runtime::config::Rule;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the built-in rules, in the form of the configuration file.
///
/// - `execution-failure-rate`: more than 30 % of all executions failed within the last hour. The main rule.
/// - `execution-failure-burst`: more than 60 % within five minutes. In a total outage the ratio over an hour needs 18
///   minutes to cross 30 %; this rule needs three.
/// - `new-error-type`: an organization has errors of a type that it never had.
/// - `error-spike`: more than three times the errors of the same hour a week ago, and at least 20.
/// - `ingest-lag`: records of a kind wait for more than 30 s to be written, so all its figures are late.
/// - `metrics-silent`: an organization whose containers sent metrics has sent none for 10 minutes. Not by container:
///   containers come and go, and a rule that fires for each one is soon ignored.
/// - `retention-failing`: expired data could not be removed or archived. Watchbook then publishes an error of its own
///   type, and again on each retry, at most two hours apart.
/// - `partitions-missing`: there are no partitions for tomorrow, which is checked hourly.
pub fn builtin_rules() -> Vec<Rule> {
    let rule = |name: &str, source: &str, severity: &str| Rule {
        name: name.to_owned(),
        source: source.to_owned(),
        severity: Some(severity.to_owned()),
        ..Rule::default()
    };
    let own_error = |name: &str, error_type: &str, window: Duration| Rule {
        filter: [("error_type".to_owned(), error_type.to_owned())].into(),
        window: Some(window),
        threshold: Some("0".to_owned()),
        ..rule(name, "errors", "critical")
    };
    let text = |text: &str| Some(text.to_owned());
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    vec![
        Rule {
            failed_when: text("success == false"),
            window: Some(HOUR),
            threshold: text("30%"),
            min_samples: Some(10),
            recover_below: text("25%"),
            keep_firing_for: Some(5 * MINUTE),
            ..rule("execution-failure-rate", "executions", "critical")
        },
        Rule {
            failed_when: text("success == false"),
            window: Some(5 * MINUTE),
            threshold: text("60%"),
            min_samples: Some(10),
            recover_below: text("50%"),
            keep_firing_for: Some(5 * MINUTE),
            ..rule("execution-failure-burst", "executions", "critical")
        },
        Rule {
            first_seen: true,
            group_by: labels(&["organization_id", "error_type"]),
            ..rule("new-error-type", "errors", "info")
        },
        Rule {
            window: Some(HOUR),
            compared_with: Some(7 * DAY),
            threshold: text("300%"),
            min_samples: Some(20),
            group_by: labels(&["organization_id"]),
            ..rule("error-spike", "errors", "warning")
        },
        Rule {
            threshold: text("30s"),
            // The lag is measured every few seconds, so there is no need to wait before resolving.
            keep_firing_for: Some(MINUTE),
            ..rule("ingest-lag", "ingest", "critical")
        },
        Rule {
            silent_for: Some(10 * MINUTE),
            group_by: labels(&["organization_id"]),
            ..rule("metrics-silent", "metrics", "warning")
        },
        own_error("retention-failing", "watchbook.retention", 3 * HOUR),
        own_error("partitions-missing", "watchbook.partitions", 2 * HOUR),
    ]
}
