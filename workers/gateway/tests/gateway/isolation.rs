//! Tests every route with every organization: no caller sees, counts or infers anything of another organization.
//!
//! Whole responses are compared, before and after an organization gets data: they change for callers that may see that
//! organization, and not by a byte for the others. A new route has to be listed here with a request, or these tests
//! fail.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytesize::ByteSize;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use gateway::auth::{Access, Role};
use gateway::routes::Route;
use harness::World;
use harness::messages::record;
use records::Kind;
use serde_json::{Value, json};

use crate::actions::{OF, fill_one, id};
use crate::audit::audit_events;
use crate::sample_rows::{ROWS, fill, make_days};
use crate::test_gateway::{Answer, TestGateway, settings};
use crate::tokens::{claims, sign};
use crate::watcher::{quick, watch};

/// The callers, by what they may see.
const CALLERS: [&[&str]; 5] = [&[], &["acme"], &["globex"], &["acme", "globex"], &["*"]];

fn may_see(caller: &[&str], organization: &str) -> bool {
    caller.contains(&"*") || caller.contains(&organization)
}

/// The organizations that a query covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Concerns {
    /// No organization, or one that no caller can name: its response is always the same.
    NoParams,
    /// All that the caller may see.
    Everything,
    /// As before, but not every kind of data changes this part.
    Part,
    /// One organization, which the query names.
    One(&'static str),
}

/// A list, or an aggregate of one: of everything, page by page if it has pages, and of each organization.
fn list(path: &str, range: &str, has_pages: bool) -> Vec<(Concerns, String)> {
    let path = format!("{path}{}{range}", if path.contains('?') { "&" } else { "?" });
    let of = |organization: &str| format!("{path}&organization_id={organization}");
    let mut requests = vec![(Concerns::Everything, path.clone())];
    requests.extend(["acme", "globex"].map(|organization| (Concerns::One(organization), of(organization))));
    requests.extend(["_", "no-such-one"].map(|organization| (Concerns::NoParams, of(organization))));
    if has_pages {
        requests.push((Concerns::Part, format!("{path}&limit=2")));
    }
    requests
}

/// One object of each organization, by its id.
fn each(path: &str) -> Vec<(Concerns, String)> {
    let own = OF
        .into_iter()
        .enumerate()
        .map(|(number, organization)| (Concerns::One(organization), path.replace("{id}", &id(number))));
    own.chain([(Concerns::NoParams, path.replace("{id}", &id(9)))]).collect()
}

/// Returns the requests for a route, whose responses contain all data that these tests insert. **Add new routes
/// here.**
fn requests_to(route: &Route, now: DateTime<Utc>) -> Vec<(Concerns, String)> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let range = format!("from={}&to={}", time(now - TimeDelta::minutes(30)), time(now + TimeDelta::minutes(10)));
    match route.path.as_str() {
        "/api/me" | "/api/openapi.json" | "/api/alerts/rules" => vec![(Concerns::NoParams, route.path.clone())],
        "/api/events" => list("/api/events?project_id=p", &range, true),
        "/api/errors" => list("/api/errors?run_id=r", &range, true),
        "/api/errors/groups" => list("/api/errors/groups?trace_id=trace%2F1", &range, true),
        "/api/errors/{trace_id}" => list("/api/errors/trace%2F1", &range, true),
        "/api/metrics" => {
            let (samples, steps) = ("/api/metrics?container_id=c", "/api/metrics?container_id=c&step=1m");
            [list(samples, &range, true), list(steps, &range, false)].concat()
        }
        "/api/logs" => list("/api/logs?container_id=c", &range, true),
        "/api/executions" => list("/api/executions?strategy_id=s%2B1", &range, true),
        "/api/executions/stats" => list("/api/executions/stats?strategy_id=s%2B1", &range, false),
        "/api/executions/trends" => list("/api/executions/trends", "days=7", false),
        "/api/users/{id}/executions/stats" => list("/api/users/u/executions/stats", &range, false),
        "/api/strategies/{id}/health" => list("/api/strategies/s+1/health", &range, false),
        "/api/audit" => list("/api/audit?action=project.delete", &range, true),
        "/api/organizations/{org}/audit" => {
            let of = |organization: &str| format!("/api/organizations/{organization}/audit?{range}");
            let named = ["acme", "globex"].map(|organization| (Concerns::One(organization), of(organization)));
            let unnamed = ["_", "no-such-one"].map(|organization| (Concerns::NoParams, of(organization)));
            named.into_iter().chain(unnamed).collect()
        }
        "/api/audit/export" => {
            let table = list("/api/audit/export", &range, false);
            [table, list("/api/audit/export?format=ndjson", &range, false)].concat()
        }
        "/api/alerts" | "/api/silences" | "/api/dead-letters" => list(&route.path, &range, true),
        "/api/retention" => list("/api/retention", "volume=true", false),
        "/api/alerts/{id}" | "/api/dead-letters/{id}" => each(&route.path),
        // Live streams are tested below.
        path if path.starts_with("/api/live/") => Vec::new(),
        path => panic!("how is {path} asked, and about whose things is it?"),
    }
}

/// Returns a response without what differs between requests.
fn said(answer: &Answer) -> String {
    let is_problem = answer.status.is_client_error() || answer.status.is_server_error();
    let text = if is_problem {
        let mut problem = answer.problem(answer.status.as_u16());
        problem.as_object_mut().unwrap().remove("request_id");
        problem.to_string()
    } else {
        answer.text.clone()
    };
    assert!(!answer.status.is_server_error(), "{answer:?}");
    format!("{} {text}", answer.status)
}

/// Returns the response to each query for each of these callers.
async fn ask_all(
    gateway: &TestGateway,
    role: Role,
    callers: &[&'static [&'static str]],
    now: DateTime<Utc>,
) -> BTreeMap<(Vec<&'static str>, Concerns, String), String> {
    let mut answers = BTreeMap::new();
    for caller in callers {
        let mut claims = claims(role.name(), caller);
        // A cursor is bound to its caller.
        claims["sub"] = json!("somebody");
        let token = sign(&claims);
        for route in gateway.routes.iter().filter(|route| route.method == "GET") {
            for (about, path) in requests_to(route, now) {
                let answer = gateway.get(&path, &token).await;
                assert!(matches!(answer.status.as_u16(), 200 | 404), "{path}: {answer:?}");
                answers.insert((caller.to_vec(), about, path), said(&answer));
            }
        }
    }
    answers
}

async fn gateway() -> TestGateway {
    let mut settings = settings();
    settings.gateway.request_burst = NonZeroU32::MAX;
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    make_days(&gateway).await;
    gateway
}

/// Inserts the data of one organization, or of none (`_`).
async fn fill_all(gateway: &TestGateway, number: usize) {
    let organization = OF[number];
    fill(gateway, Some(organization).filter(|name| *name != "_"), ROWS).await;
    fill_one(gateway, number, organization).await;
    audit_events(gateway, organization, 5).await;
}

#[tokio::test]
async fn an_answer_changes_by_what_its_caller_may_see_and_by_nothing_else() {
    let (gateway, now) = (gateway().await, Utc::now());
    let mut before = ask_all(&gateway, Role::Admin, &CALLERS, now).await;
    for (number, organization) in OF.into_iter().enumerate() {
        fill_all(&gateway, number).await;
        let after = ask_all(&gateway, Role::Admin, &CALLERS, now).await;
        assert_eq!(before.len(), after.len());
        for ((requests, before), after) in before.iter().zip(after.values()) {
            let (caller, about, path) = requests;
            let is_about_it = match about {
                Concerns::NoParams => false,
                Concerns::Everything | Concerns::Part => true,
                Concerns::One(named) => *named == organization,
            };
            let expected = may_see(caller, organization) && is_about_it;
            if expected && *about == Concerns::Part {
                continue;
            }
            let what = format!("{caller:?} on {path}, by what {organization} has:\n{before}\n{after}");
            assert_eq!(before != after, expected, "{what}");
        }
        before = after;
    }
    // A role decides on actions, and not on whose data is visible.
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Admin) {
        let of_role = ask_all(&gateway, role, &[&["acme"]], now).await;
        for (requests, said) in of_role.iter().filter(|((_, _, path), _)| path != "/api/me") {
            assert_eq!(said, &before[requests], "{role:?}: {requests:?}");
        }
    }
    gateway.world.execute("TRUNCATE watchbook.dead_letters").await;
    gateway.finish().await;
}

/// Returns the request for an action on an object of an organization, by its number in [`OF`]: path, headers and body.
type Mutation = (String, Vec<(&'static str, String)>, Value);

/// **Add new routes with an action here.**
fn act(route: &Route, number: usize) -> Mutation {
    let organization = OF.get(number).copied().unwrap_or("no-such-one");
    let to = |body| (route.path.replace("{id}", &id(number)), Vec::new(), body);
    match (route.method.as_str(), route.path.as_str()) {
        ("POST", "/api/alerts/{id}/acknowledge") => to(json!({ "reason": "on it" })),
        ("POST", "/api/dead-letters/{id}/discard" | "/api/dead-letters/{id}/replay") => to(json!({})),
        ("POST", "/api/silences") => to(json!({
            "matchers": [format!("organization_id={organization}")], "ends_at": Utc::now() + TimeDelta::hours(1), "reason": "x",
        })),
        ("DELETE", "/api/silences") => (format!("/api/silences?id={}", id(number)), Vec::new(), json!({})),
        ("POST", path) if Kind::ALL.iter().any(|kind| path == format!("/api/{kind}")) => {
            let kind = Kind::ALL.iter().find(|kind| path == format!("/api/{kind}")).unwrap();
            (path.to_owned(), vec![("x-organization", organization.to_owned())], record(*kind, 1))
        }
        (method, path) => panic!("how is {method} {path} asked to do something, and to whose things?"),
    }
}

/// Returns the current state of the objects of actions.
async fn things(gateway: &TestGateway) -> (Vec<(String,)>, Vec<u64>) {
    let tables = ["alerts", "alert_transitions", "silences", "dead_letters", "own_records", "holds"];
    let rows = tables.map(|table| format!("SELECT '{table} ' || t::text FROM watchbook.{table} AS t"));
    let rows = gateway.world.query_all(&format!("{} ORDER BY 1", rows.join(" UNION ALL "))).await;
    let mut messages = Vec::new();
    for &kind in Kind::ALL {
        messages.push(gateway.messages(kind).await);
    }
    (rows, messages)
}

#[tokio::test]
async fn who_acts_on_what_is_not_theirs_changes_nothing_and_learns_nothing() {
    let gateway = gateway().await;
    for &kind in Kind::ALL {
        gateway.stream(kind, ByteSize::mib(1)).await;
    }
    for number in 0..OF.len() {
        fill_all(&gateway, number).await;
    }
    let acting: Vec<_> =
        gateway.routes.iter().filter(|route| route.method != "GET" && route.access != Access::Public).collect();
    assert!(acting.len() >= 5 + Kind::ALL.len(), "{acting:?}");
    let (acme, nobody) = (sign(&claims("admin", &["acme"])), sign(&claims("admin", &[])));
    for route in acting {
        let ask = async |token: &str, number| {
            let (path, headers, body) = act(route, number);
            let bearer = format!("Bearer {token}");
            let mut all = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
            all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
            gateway.request(route.method.as_str(), &path, &all, &body.to_string()).await
        };
        // The audit event of the previous action may still be on its way to its stream.
        harness::eventually("internal records are published", async || {
            match gateway.world.count("SELECT count(*) FROM watchbook.own_records").await {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await;
        let before = things(&gateway).await;
        for token in [&acme, &nobody] {
            // An object that does not exist.
            let nothing = ask(token, 9).await;
            assert!(nothing.status.is_client_error(), "{route:?}: {nothing:?}");
            let foreign = if *token == acme { 1..OF.len() } else { 0..OF.len() };
            for number in foreign {
                assert_eq!(said(&ask(token, number).await), said(&nothing), "{route:?} on what {} has", OF[number]);
            }
        }
        assert_eq!(things(&gateway).await, before, "{route:?}");
        // The action succeeds on the caller's own objects, or fails because of the object: no stream has the subject
        // of that dead letter.
        let own = ask(&acme, 0).await;
        let is_done = own.status.is_success() || route.path.starts_with("/api/dead-letters") && own.status == 409;
        assert!(is_done, "{route:?}: {own:?}");
    }
    gateway.world.execute("TRUNCATE watchbook.dead_letters").await;
    gateway.finish().await;
}

#[tokio::test]
async fn who_watches_sees_what_they_may_and_nothing_else() {
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, quick()).await;
    let watched: Vec<_> = gateway.routes.iter().filter_map(|route| route.path.strip_prefix("/api/live/")).collect();
    assert_eq!(watched.len(), Kind::ALL.len(), "a route that watches something else is not watched here: {watched:?}");
    for &kind in Kind::ALL {
        assert!(watched.contains(&kind.name()), "{kind}");
        gateway.stream(kind, ByteSize::mib(1)).await;
        // Watching the audit log is itself a record of that log.
        let path = format!("/api/live/{kind}{}", if kind == Kind::Audit { "?action=test.run" } else { "" });
        let of = |organization: &str| {
            format!("{path}{}organization_id={organization}", if path.contains('?') { "&" } else { "?" })
        };
        let mut watching = Vec::new();
        for caller in CALLERS {
            let token = sign(&claims("admin", caller));
            let numbers = |only: Option<&str>| {
                let seen = OF.into_iter().enumerate().filter(|(_, organization)| {
                    may_see(caller, organization) && only.is_none_or(|only| only == *organization)
                });
                seen.map(|(number, _)| number as u64).collect::<Vec<_>>()
            };
            watching.push((caller, watch(&gateway, &path, &token, None).await, numbers(None)));
            let only = watch(&gateway, &of("globex"), &token, None).await;
            watching.push((caller, only, numbers(Some("globex"))));
        }
        for (number, organization) in OF.into_iter().enumerate() {
            let token =
                sign(&claims("producer", if organization == "_" { &["*"] } else { std::slice::from_ref(&OF[number]) }));
            let body = record(kind, number as u64).to_string();
            assert_eq!(gateway.post(&format!("/api/{kind}"), &token, &[], &body).await.status, 202, "{kind}");
        }
        for (caller, watcher, numbers) in &mut watching {
            assert_eq!(watcher.numbers(numbers.len()).await, *numbers, "{caller:?} on {kind}");
            watcher.is_idle().await;
        }
    }
    gateway.finish().await;
}
