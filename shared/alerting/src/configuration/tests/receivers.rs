//! Receivers and routes, valid and invalid.

use chrono::TimeDelta;

use super::*;
use crate::receiver::Channel;

#[test]
fn receivers_get_their_secrets_from_the_environment() {
    let alerting = load(
        "[[receivers]]\nname = 'hook'\nwebhook = { url = 'https://a.example/', secret_env = 'KEY', max_alerts = 5 }\n\
         [[receivers]]\nname = 'slack'\nslack = { url_env = 'URL' }\nsend_resolved = false\n\
         [[receivers]]\nname = 'pd'\npagerduty = { routing_key_env = 'KEY' }\n\
         [[receivers]]\nname = 'mail'\nemail = { server = 'smtp://m.example', from = 'a@b.c', to = ['d@e.f'], user = 'u', password_env = 'KEY' }\n\
         [[receivers]]\nname = 'am'\nalertmanager = { url = 'http://am:9093' }\n\
         [[receivers]]\nname = 'nats'\nnats = {}\n\
         [[receivers]]\nname = 'dead'\nheartbeat = { url_env = 'URL' }\n",
    )
    .unwrap();
    let shown = format!("{:?}", alerting.receivers);
    assert!(!shown.contains("\"k\""), "{shown}");
    let [hook, slack, pd, mail, am, nats, dead] = alerting.receivers.as_slice() else { panic!("{shown}") };
    let Channel::Webhook(webhook) = &hook.channel else { panic!() };
    assert_eq!(
        (webhook.secret.as_ref().map(|s| s.reveal()), webhook.max_alerts, hook.send_resolved),
        (Some("k"), 5, true)
    );
    let Channel::Slack(slack_channel) = &slack.channel else { panic!() };
    assert_eq!((slack_channel.url.reveal(), slack.send_resolved), ("https://hooks.example/secret", false));
    let Channel::Pagerduty(pagerduty) = &pd.channel else { panic!() };
    assert_eq!(pagerduty.url, "https://events.pagerduty.com/v2/enqueue");
    assert!(matches!(&mail.channel, Channel::Email(email) if email.password.is_some()));
    assert!(matches!(&am.channel, Channel::Alertmanager(am) if am.refresh.as_secs() == 60));
    assert!(matches!(&nats.channel, Channel::Nats(nats) if nats.subject.is_none()));
    assert!(matches!(&dead.channel, Channel::Heartbeat(_)));
    // Without routes, every receiver of alerts is notified of all alerts.
    let labels = crate::notification::Labels::new();
    let to = &alerting.route(&labels).unwrap().to;
    assert_eq!(to, &["hook", "slack", "pd", "mail", "am", "nats"]);
    assert!(load("[[receivers]]\nname = 'd'\nheartbeat = { url_env = 'URL' }").unwrap().routes.is_empty());
}

#[test]
fn what_is_wrong_with_a_receiver_is_said_at_its_key_and_shows_no_secret() {
    for (text, problem) in [
        ("", "name: `r` needs exactly one of `webhook`"),
        ("nats = {}\nslack = { url_env = 'URL' }", "name: `r` needs exactly one of"),
        ("webhook = {}", "webhook.url: missing"),
        ("webhook = { url = 'https://a', url_env = 'URL' }", "webhook.url_env: set `url` or `url_env`"),
        ("webhook = { url = 'a.example/hidden' }", "webhook.url: expected a URL that begins with http:// or https://"),
        ("webhook = { url_env = 'NONE' }", "webhook.url_env: the environment variable `NONE` is not set"),
        ("webhook = { url_env = 'EMPTY' }", "webhook.url_env: the environment variable `EMPTY` is not set, or empty"),
        ("webhook = { url_env = 'BAD' }", "webhook.url_env: expected a URL"),
        ("webhook = { url = 'https://a', secret_env = 'NONE' }", "webhook.secret_env: the environment variable `NONE`"),
        ("slack = {}", "slack.url: missing"),
        ("pagerduty = { routing_key_env = 'NONE' }", "pagerduty.routing_key_env: the environment variable"),
        ("pagerduty = { routing_key_env = 'KEY', url = 'x' }", "pagerduty.url: expected a URL"),
        ("alertmanager = { url = 'http://a', refresh = '10m' }", "alertmanager.refresh: between 1s and 4m"),
        (
            "email = { server = 'http://a', from = 'a@b', to = ['c@d'] }",
            "email.server: expected a URL that begins with smtp:// or smtps://",
        ),
        ("email = { server = 'smtp://a', from = 'ab', to = ['c@d'] }", "email.from: `ab` is no mail address"),
        ("email = { server = 'smtp://a', from = 'a@b', to = ['cd'] }", "email.to: `cd` is no mail address"),
        ("email = { server = 'smtp://a', from = 'a@b', to = [] }", "email.to: names nobody"),
        (
            "email = { server = 'smtp://a', from = 'a@b', to = ['c@d'], user = 'u' }",
            "email.user: `user` and `password_env`",
        ),
        ("nats = { subject = 'a.>' }", "nats.subject: `a.>` is no subject"),
        (
            "nats = { subject = 'watchbook.errors.x' }",
            "nats.subject: `watchbook.errors.x` belongs to the records of errors",
        ),
        ("heartbeat = { url = '' }", "heartbeat.url: expected a URL"),
    ] {
        let found = problems(&format!("[[receivers]]\nname = 'r'\n{text}"));
        let expected = format!("receivers.0.{problem}");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{text}: {found:?}");
        assert!(!found[0].contains("hidden") && !found[0].contains("no url"), "{found:?}");
    }
    let twice = problems("[[receivers]]\nname = 'r'\nnats = {}\n[[receivers]]\nname = 'r'\nnats = {}");
    assert_eq!(twice, ["receivers.1.name: another receiver is called `r`"]);
}

#[test]
fn routes_are_checked() {
    let receivers =
        "[[receivers]]\nname = 'a'\nnats = {}\n[[receivers]]\nname = 'dead'\nheartbeat = { url_env = 'URL' }\n";
    let alerting = load(&format!(
        "{receivers}[[routes]]\nmatch = {{ severity = 'critical', organization = 'acme' }}\nmatch_re = {{ alertname = 'exec.*' }}\n\
         to = ['a', 'a']\ngroup_by = ['strategy']\ngroup_wait = '10s'\nrepeat_interval = '1h'\n[[routes]]\nto = ['a']\n"
    ))
    .unwrap();
    let [first, last] = alerting.routes.as_slice() else { panic!() };
    let matchers: Vec<_> = first.matchers.iter().map(ToString::to_string).collect();
    assert_eq!(matchers, ["organization_id=acme", "severity=critical", "alertname=~exec.*"]);
    assert_eq!(
        (first.to.as_slice(), first.group_by.as_slice()),
        (&["a".to_owned()][..], &["strategy_id".to_owned()][..])
    );
    assert_eq!((first.group_wait, first.repeat_interval), (TimeDelta::seconds(10), TimeDelta::hours(1)));
    assert_eq!((last.group_wait, last.repeat_interval), (TimeDelta::zero(), TimeDelta::hours(4)));
    assert_eq!(last.group_by, ["alertname", "organization_id"]);
    for (text, problem) in [
        ("to = ['b']", "routes.0.to: no receiver has the name `b`; there is `a`, `dead`"),
        ("to = []", "routes.0.to: names no receiver"),
        ("to = ['dead']", "routes.0.to: `dead` is a heartbeat"),
        ("match = { sverity = 'critical' }\nto = ['a']", "routes.0.match.sverity: no alert has a label `sverity`"),
        ("match = { severity = 'bad' }\nto = ['a']", "routes.0.match.severity: unknown severity `bad`"),
        ("match = { alertname = 'x' }\nto = ['a']", "routes.0.match.alertname: no rule is called `x`"),
        ("match_re = { alertname = '(' }\nto = ['a']", "routes.0.match_re.alertname: `(` is no regular expression"),
        ("group_by = ['x']\nto = ['a']", "routes.0.group_by: no alert has a label `x`"),
        ("repeat_interval = '0s'\nto = ['a']", "routes.0.repeat_interval: between"),
        ("group_wait = '1h'\nto = ['a']", "routes.0.group_wait: at most 10m"),
        ("to = ['a']\n[[routes]]\nto = ['a']", "routes.1.to: never taken: the route 1 before it catches all"),
    ] {
        let found = problems(&format!("{receivers}[[routes]]\n{text}"));
        assert!(found.len() == 1 && found[0].starts_with(problem), "{text}: {found:?}");
    }
}
