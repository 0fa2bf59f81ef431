//! Annotations: templates with placeholders.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior, context};

use crate::notification::Labels;
use crate::rule_engine::RuleEngine;

/// Variables of a template, besides `labels`.
const NAMES: [&str; 4] = ["value", "reason", "rule", "organization"];
/// Global functions and variables that minijinja provides.
const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "loop"];
const LABELS: &str = "labels";

/// The values that a template can use.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// The rule's name.
    pub rule: &'f str,
    /// The alert's labels.
    pub labels: &'f Labels,
    /// The value that is compared with the threshold, with its unit.
    pub value: &'f str,
    /// Why the alert fires or has resolved.
    pub reason: &'f str,
}

/// Renders a template. A label that the alert does not have renders as the empty string. If rendering fails, the
/// template is returned unchanged, because an alert without its annotation is worse.
pub fn render(template: &str, facts: &Facts<'_>) -> String {
    fill(template, facts, UndefinedBehavior::Chainable).unwrap_or_else(|_| template.to_owned())
}

fn fill(template: &str, facts: &Facts<'_>, undefined: UndefinedBehavior) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment.render_str(
        template,
        context! {
            labels => facts.labels,
            value => facts.value,
            reason => facts.reason,
            rule => facts.rule,
            organization => RuleEngine::organization(facts.labels),
        },
    )
}

/// Checks a template against the labels that the rule's alerts have, including branches that are never taken.
///
/// # Errors
/// Returns a description of the first problem.
pub fn check(template: &str, labels: &BTreeSet<String>) -> Result<(), String> {
    let environment = Environment::new();
    let parsed = environment.template_from_str(template).map_err(|error| message(&error))?;
    let mut asked: Vec<_> = parsed.undeclared_variables(true).into_iter().collect();
    asked.sort();
    for path in asked {
        match path.split_once('.') {
            Some((LABELS, label)) if labels.contains(label) => {}
            // A method of the map, such as `items`, looks like a label here. The rendering below catches wrong uses.
            Some((LABELS, "items" | "keys" | "values" | "get")) => {}
            Some((LABELS, label)) => {
                let known: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
                return Err(format!("alerts of this rule have no label `{label}`; there is {}", known.join(", ")));
            }
            None if path == LABELS || NAMES.contains(&path.as_str()) || FUNCTIONS.contains(&path.as_str()) => {}
            Some((name, _)) if FUNCTIONS.contains(&name) => {}
            Some((name, member)) if NAMES.contains(&name) => {
                return Err(format!("`{name}` is a text and has no `{member}`"));
            }
            _ => {
                return Err(format!(
                    "names `{path}`, which does not exist; there is `labels.<name>`, `value`, `reason`, `rule` and `organization`"
                ));
            }
        }
    }
    let example: Labels = labels.iter().map(|label| (label.clone(), "x".to_owned())).collect();
    let facts = Facts { rule: "rule", labels: &example, value: "1", reason: "reason" };
    fill(template, &facts, UndefinedBehavior::Strict).map(drop).map_err(|error| message(&error))
}

fn message(error: &minijinja::Error) -> String {
    let line = error.line().filter(|line| *line > 1).map(|line| format!(" in line {line}")).unwrap_or_default();
    match error.detail() {
        Some(detail) => format!("{}{line}: {detail}", error.kind()),
        None => format!("{}{line}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        [("organization_id", "acme"), ("strategy_id", "s1"), ("alertname", "r"), ("severity", "critical")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn texts_are_filled_in() {
        let labels = labels();
        let facts = Facts { rule: "r", labels: &labels, value: "30.7 %", reason: "31 of 101 failed" };
        for (template, text) in [
            ("plain", "plain"),
            (
                "{{ organization }}/{{ labels.strategy_id }}: {{ value }} ({{ reason }})",
                "acme/s1: 30.7 % (31 of 101 failed)",
            ),
            ("{{ rule|upper }}{% if severity %}!{% endif %}", "R"),
            // The rule has this label, this alert does not.
            ("project {{ labels.project_id }}.", "project ."),
            // Nothing is escaped: each receiver escapes for its own format.
            ("{{ '<' }}", "<"),
            // A template that fails to render is shown as written.
            ("{{ nothing() }}", "{{ nothing() }}"),
        ] {
            assert_eq!(render(template, &facts), text);
        }
    }

    #[test]
    fn a_template_is_checked_before_it_is_needed() {
        let labels: BTreeSet<_> = labels().into_keys().collect();
        for template in [
            "plain",
            "{{ labels.strategy_id }} {{ labels['severity'] }} {{ value }} {{ reason }} {{ rule }} {{ organization }}",
            "{% for name in labels %}{{ name }}={{ labels[name] }} {% endfor %}",
            "{% for name, value in labels|items %}{{ name }}{{ value }}{{ loop.index }}{% endfor %}",
            "{% if labels.severity == 'info' %}{{ labels.alertname }}{% endif %}",
            "{% set x = value %}{{ x }}",
            "{% for n in range(3) %}{{ n }}{% endfor %}",
        ] {
            assert_eq!(check(template, &labels), Ok(()), "{template}");
        }
        for (template, problem) in [
            ("{{ labels.project_id }}", "no label `project_id`; there is `alertname`, `organization_id`"),
            ("{% if labels.severity == 'never' %}{{ labels.nope }}{% endif %}", "no label `nope`"),
            ("{{ labels['nope'] }}", "undefined"),
            ("{% if false %}{{ nope }}{% endif %}", "names `nope`, which does not exist"),
            ("{{ value.x }}", "`value` is a text and has no `x`"),
            ("{{ nope.x }}", "names `nope.x`"),
            ("{{ reason", "syntax error"),
            ("{{ reason|nope }}", "unknown filter"),
            ("{{ nope() }}", "names `nope`"),
            ("a\n{% nope %}", "in line 2"),
        ] {
            let error = check(template, &labels).expect_err(template);
            assert!(error.contains(problem), "{template}: {error}");
        }
    }
}
