//! Rules, valid and invalid.

use chrono::TimeDelta;
use records::Kind;
use runtime::config::Ratio;

use super::*;
use crate::rule::{Aggregate, Check, Severity, Source};

const SHARE: &str = "source = 'executions'\nfailed_when = 'success == false'\n";

#[test]
fn the_built_in_rules_apply_where_there_are_none() {
    let alerting = load("").unwrap();
    let names: Vec<_> = alerting.rules.iter().map(|rule| rule.name.as_str()).collect();
    let expected = [
        "execution-failure-rate",
        "execution-failure-burst",
        "new-error-type",
        "error-spike",
        "ingest-lag",
        "metrics-silent",
        "retention-failing",
        "partitions-missing",
    ];
    assert_eq!(names, expected);
    assert!(alerting.receivers.is_empty() && alerting.routes.is_empty());
    let main = &alerting.rules[0];
    assert_eq!(
        (main.window, main.keep_firing_for, main.hold_for),
        (TimeDelta::hours(1), TimeDelta::minutes(5), TimeDelta::zero())
    );
    assert_eq!((main.severity, main.source), (Severity::Critical, Source::Records(Kind::Executions)));
    assert!(main.group_by.is_empty() && main.filter.is_empty());
    let Check::Ratio { failed_when, threshold, recover_below, min_samples } = &main.check else { panic!("{main:?}") };
    assert_eq!(failed_when.to_string(), "success == false");
    assert_eq!((*threshold, *recover_below, *min_samples), (Ratio::percent(30), Ratio::percent(25), 10));
    assert_eq!(alerting.rules[4].group_by, ["kind"]);
    let words: Vec<_> = alerting.rules.iter().map(|rule| rule.describe_condition()).collect();
    assert_eq!(
        words,
        [
            "more than 30 % of executions failed within 1 h (success == false)",
            "more than 60 % of executions failed within 5 min (success == false)",
            "errors of a group that was never seen, or not for 30 d; for 1 h",
            "at least 20 errors within 1 h, and more than 300 % of those 7 d before",
            "the oldest record that is not written is older than 30 s",
            "no metrics for more than 10 min after there were some",
            "more than 0 matching errors within 3 h",
            "more than 0 matching errors within 2 h",
        ]
    );
}

#[test]
fn the_shipped_file_describes_rules_that_work() {
    let shipped = include_str!("../../../../../deploy/watchbook.toml");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    // The second receiver lists every channel.
    let text: String = shipped.lines().map(line).collect();
    let (before, rest) = text.split_once("[[receivers]]\nname = \"others\"").unwrap();
    let (others, after) = rest.split_once("[[routes]]").unwrap();
    let mut file = format!("{before}[[routes]]{after}");
    for (number, way) in others.lines().filter(|line| line.contains(" = {")).enumerate() {
        file.push_str(&format!("[[receivers]]\nname = \"other-{number}\"\n{way}\n"));
    }
    let config: Config = toml::from_str(&file).unwrap();
    let alerting = Alerting::of(&config, &|_| Some("https://x.example/".to_owned())).unwrap();
    assert_eq!((alerting.rules.len(), alerting.receivers.len(), alerting.routes.len()), (7, 7, 1));
}

#[test]
fn each_check_has_its_form_and_its_defaults() {
    let share = rule(&format!("{SHARE}window = '1h'\nthreshold = '0.6%'"));
    let Check::Ratio { threshold, recover_below, min_samples, .. } = share.check else { panic!() };
    assert_eq!((threshold.millionths(), recover_below.millionths(), min_samples), (6_000, 5_000, 10));
    assert_eq!((share.severity, share.keep_firing_for), (Severity::Warning, TimeDelta::minutes(5)));

    let count = rule("source = 'errors'\nwindow = '5m'\nthreshold = '100'\nwhere = { project = 'p' }");
    assert_eq!(count.check, Check::Count { threshold: 100, recover_below: 84 });
    assert_eq!(count.filter, [("project_id".to_owned(), "p".to_owned())].into());

    let rate = rule(
        "source = 'logs'\nwindow = '5m'\nthreshold = '6/s'\nrecover_below = '240/min'\ngroup_by = ['container', 'organization']",
    );
    assert_eq!(
        rate.check,
        Check::Rate { threshold: "6/s".parse().unwrap(), recover_below: "240/min".parse().unwrap() }
    );
    assert_eq!(rate.group_by, ["container_id", "organization_id"]);

    for (value, threshold, expected) in [
        ("avg(cpu_usage_percent)", "90", ("cpu_usage_percent", Aggregate::Average, 90.0)),
        ("max( cpu_usage_percent )", "90%", ("cpu_usage_percent", Aggregate::Peak, 90.0)),
        ("max(memory_usage_bytes)", "2 GiB", ("memory_usage_bytes", Aggregate::Peak, 2_147_483_648.0)),
        ("avg(memory_usage_bytes)", "1500", ("memory_usage_bytes", Aggregate::Average, 1500.0)),
    ] {
        let level = rule(&format!("source = 'metrics'\nwindow = '10m'\nvalue = '{value}'\nthreshold = '{threshold}'"));
        let Check::Level { field, aggregate, threshold, recover_below, min_samples } = level.check else { panic!() };
        assert_eq!((field.as_str(), aggregate, threshold), expected);
        assert!((recover_below - threshold * 5.0 / 6.0).abs() < 1e-9 && min_samples == 1);
    }

    let silence = rule("source = 'metrics'\nsilent_for = '10m'");
    assert_eq!(silence.check, Check::Silence { after: TimeDelta::minutes(10) });
    assert_eq!((silence.window, silence.keep_firing_for), (TimeDelta::minutes(10), TimeDelta::zero()));

    let news = rule("source = 'errors'\nfirst_seen = true\ngroup_by = ['error_type']");
    assert_eq!(news.check, Check::FirstSeen { forget_after: TimeDelta::days(30) });
    assert_eq!((news.window, news.keep_firing_for), (TimeDelta::hours(1), TimeDelta::zero()));

    let spike = rule("source = 'errors'\nwindow = '1h'\ncompared_with = '7d'\nthreshold = '300%'");
    let Check::Spike { against, threshold, recover_below, min_samples } = spike.check else { panic!() };
    assert_eq!(
        (against, threshold, recover_below, min_samples),
        (TimeDelta::days(7), Ratio::percent(300), Ratio::percent(250), 20)
    );

    let lag = rule("source = 'ingest'\nthreshold = '30s'\nfor = '10s'\nseverity = 'critical'");
    assert_eq!(lag.check, Check::Lag { threshold: TimeDelta::seconds(30), recover_below: TimeDelta::seconds(25) });
    assert_eq!(
        (lag.source, lag.hold_for, lag.group_by),
        (Source::Ingest, TimeDelta::seconds(10), vec!["kind".to_owned()])
    );
}

#[test]
fn what_is_wrong_with_a_rule_is_said_at_its_key() {
    for (text, problem) in [
        (
            "source = 'execution'\nwindow = '1h'\nthreshold = '1'",
            "rules.0.source: unknown source `execution`; there is `events`, `errors`",
        ),
        ("source = 'directory'\nwindow = '1h'\nthreshold = '1'", "rules.0.source: unknown source `directory`"),
        (
            "source = 'executions'\nfailed_when = 'sucess == false'\nwindow = '1h'\nthreshold = '30%'",
            "rules.0.failed_when: executions have no field `sucess`",
        ),
        ("source = 'executions'\nwindow = '1h'\nthreshold = '30%'", "rules.0.failed_when: missing"),
        ("SHARE window = '1h'", "rules.0.threshold: missing: a share such as"),
        ("SHARE window = '1h'\nthreshold = '100%'", "rules.0.threshold: never reached"),
        ("SHARE window = '1h'\nthreshold = '-1%'", "rules.0.threshold: always true"),
        ("SHARE window = '1h'\nthreshold = '30'", "rules.0.threshold: expected a share such as \"30%\"; found `30`"),
        ("SHARE window = '1h'\nthreshold = '30%'\nrecover_below = '31%'", "rules.0.recover_below: above `threshold`"),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nrecover_below = 'low'",
            "rules.0.recover_below: expected the same form",
        ),
        ("SHARE window = '1h'\nthreshold = '30%'\nmin_samples = 0", "rules.0.min_samples: at least 1"),
        ("SHARE threshold = '30%'", "rules.0.window: missing"),
        ("SHARE window = '0s'\nthreshold = '30%'", "rules.0.window: whole minutes"),
        ("SHARE window = '90s'\nthreshold = '30%'", "rules.0.window: whole minutes"),
        ("SHARE window = '25h'\nthreshold = '30%'", "rules.0.window: at most 24h"),
        ("SHARE window = '1h'\nthreshold = '30%'\nfor = '2d'", "rules.0.for: at most 24h"),
        ("SHARE window = '1h'\nthreshold = '30%'\nkeep_firing_for = '2d'", "rules.0.keep_firing_for: at most 24h"),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nseverity = 'bad'",
            "rules.0.severity: unknown severity `bad`: info, warning or critical",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\ngroup_by = ['project']",
            "rules.0.group_by: executions have no label `project`; there is `organization_id`, `strategy_id`",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\ngroup_by = ['user', 'user_id']",
            "rules.0.group_by: `user_id` stands there twice",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nwhere = { success = 'false' }",
            "rules.0.where.success: executions have no label `success`",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nwhere = { timed_out = 'yes' }",
            "rules.0.where.timed_out: `timed_out` is \"true\" or \"false\"",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nwhere = { user = 'a', user_id = 'b' }",
            "rules.0.where.user_id: `user_id` is asked for twice",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nlabels = { severity = 'x' }",
            "rules.0.labels.severity: alerts of this rule have a label `severity` already",
        ),
        ("SHARE window = '1h'\nthreshold = '30%'\nlabels = { 'a-b' = 'x' }", "rules.0.labels.a-b: a label's name"),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nannotations = { a = '{% if false %}{{ nope }}{% endif %}' }",
            "rules.0.annotations.a: names `nope`",
        ),
        (
            "SHARE window = '1h'\nthreshold = '30%'\nannotations = { a = '{{ labels.strategy_id }}' }",
            "rules.0.annotations.a: alerts of this rule have no label `strategy_id`",
        ),
        ("SHARE silent_for = '10m'", "rules.0.failed_when: `failed_when` means nothing to a rule on silence"),
        (
            "source = 'metrics'\nsilent_for = '10m'\nwindow = '1h'",
            "rules.0.window: `window` means nothing to a rule on silence",
        ),
        ("source = 'metrics'\nsilent_for = '2d'", "rules.0.silent_for: at most 24h"),
        ("source = 'errors'\nfirst_seen = true", "rules.0.group_by: missing"),
        (
            "source = 'errors'\nfirst_seen = true\ngroup_by = ['error_type']\nforget_after = '1h'",
            "rules.0.forget_after: between",
        ),
        ("source = 'errors'\nfirst_seen = true\ngroup_by = ['error_type']\nfor = '1h'", "rules.0.for: never reached"),
        (
            "source = 'errors'\nforget_after = '30d'\nwindow = '1h'\nthreshold = '5'",
            "rules.0.forget_after: `forget_after` means nothing to a rule on a count",
        ),
        ("source = 'errors'\nwindow = '1h'\nthreshold = '-5'", "rules.0.threshold: always true"),
        ("source = 'errors'\nwindow = '1h'\nthreshold = 'many'", "rules.0.threshold: expected a count"),
        ("source = 'errors'\nwindow = '1h'", "rules.0.threshold: missing: a count such as"),
        (
            "source = 'errors'\nwindow = '1h'\nthreshold = '5'\nmin_samples = 3",
            "rules.0.min_samples: `min_samples` means nothing",
        ),
        ("source = 'errors'\nwindow = '1h'\nthreshold = '5/day'", "rules.0.threshold: expected a rate"),
        (
            "source = 'errors'\nwindow = '1h'\nthreshold = '5/s'\nrecover_below = '301/min'",
            "rules.0.recover_below: above",
        ),
        (
            "source = 'errors'\nwindow = '1h'\nthreshold = '90'\nvalue = 'avg(x)'",
            "rules.0.value: errors have nothing that is measured",
        ),
        (
            "source = 'metrics'\nwindow = '1h'\nthreshold = '90'\nvalue = 'avg(cpu)'",
            "rules.0.value: metrics do not measure `cpu`; there is `cpu_usage_percent` and `memory_usage_bytes`",
        ),
        (
            "source = 'metrics'\nwindow = '1h'\nthreshold = '90'\nvalue = 'min(cpu_usage_percent)'",
            "rules.0.value: expected `avg(...)` or `max(...)`",
        ),
        (
            "source = 'metrics'\nwindow = '1h'\nthreshold = 'NaN'\nvalue = 'avg(cpu_usage_percent)'",
            "rules.0.threshold: expected a level",
        ),
        (
            "source = 'metrics'\nwindow = '1h'\nthreshold = '-1'\nvalue = 'avg(cpu_usage_percent)'",
            "rules.0.threshold: always true",
        ),
        (
            "source = 'metrics'\nwindow = '1h'\nthreshold = '9'\nrecover_below = '10'\nvalue = 'avg(cpu_usage_percent)'",
            "rules.0.recover_below: above",
        ),
        (
            "source = 'metrics'\nwindow = '1h'\nvalue = 'avg(cpu_usage_percent)'",
            "rules.0.threshold: missing: the level",
        ),
        (
            "source = 'errors'\nwindow = '1h'\ncompared_with = '30m'\nthreshold = '300%'",
            "rules.0.compared_with: whole minutes, at least the window",
        ),
        (
            "source = 'errors'\nwindow = '1h'\ncompared_with = '7d'\nthreshold = '90%'",
            "rules.0.threshold: always true of an ordinary week",
        ),
        ("source = 'ingest'\nthreshold = '30'", "rules.0.threshold: expected a time such as \"30s\""),
        ("source = 'ingest'\nthreshold = '30s'\nrecover_below = '1m'", "rules.0.recover_below: above"),
        (
            "source = 'ingest'\nthreshold = '30s'\nwindow = '1h'",
            "rules.0.window: `window` means nothing to a rule on `ingest`",
        ),
        ("source = 'ingest'\nthreshold = '30s'\nwhere = { kind = 'x' }", "rules.0.where: `where` means nothing"),
    ] {
        let text = text.replace("SHARE ", SHARE);
        let found = problems(&format!("[[rules]]\nname = 'r'\n{text}"));
        assert!(found.len() == 1 && found[0].starts_with(problem), "{text}\nexpected {problem}\nfound {found:#?}");
    }
}
