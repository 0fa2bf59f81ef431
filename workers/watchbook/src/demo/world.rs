//! The data of the simulation: organizations, people, projects, strategies and failures.

use std::borrow::Cow;

use fastrand::Rng;
use records::ErrorRecord;
use records::errors::Severity;

/// The `source` of all demo records.
pub(super) const SOURCE: &str = "watchbook demo";
pub(super) const ORGANIZATIONS: &[&str] = &["acme", "globex", "initech"];
pub(super) const PEOPLE: &[(&str, &str)] = &[
    ("ada", "Ada Lovelace"),
    ("grace", "Grace Hopper"),
    ("alan", "Alan Turing"),
    ("edsger", "Edsger Dijkstra"),
    ("barbara", "Barbara Liskov"),
];
/// Strategies: id, name, and the share of executions that fail normally.
pub(super) const STRATEGIES: &[(&str, &str, f64)] = &[
    ("momentum", "Momentum 12-1", 0.03),
    ("carry", "Carry basket", 0.04),
    ("pairs", "Pairs trading", 0.06),
    ("mean-reversion", "Mean reversion", 0.10),
];
pub(super) const PROJECTS: &[&str] = &["checkout", "search", "billing"];
pub(super) const STEPS: &[&str] = &["checkout", "dependencies", "build", "test", "package"];
pub(super) const LOG_LINES: &[&str] = &[
    "GET /health 200",
    "cache warmed in 182 ms",
    "accepted connection from 10.0.3.7",
    "flushed 1204 metrics",
    "retrying upstream, attempt 2",
];
pub(super) const ACTIONS: &[(&str, &str)] = &[
    ("project.update", "project"),
    ("user.invite", "user"),
    ("api_key.rotate", "api_key"),
    ("strategy.publish", "strategy"),
    ("project.delete", "project"),
];
/// Containers of each organization.
pub(super) const CONTAINERS: u32 = 3;

/// A kind of failure. `{line}` in a stack stands for numbers that differ between releases and requests.
struct Failure {
    error_type: &'static str,
    message: &'static str,
    project: &'static str,
    endpoint: &'static str,
    severity: Severity,
    stack: Option<&'static str>,
}

/// The failure that a bad deployment causes: the first of `FAILURES`.
pub(super) const OF_A_BAD_DEPLOYMENT: usize = 0;

const FAILURES: &[Failure] = &[
    Failure {
        error_type: "panic",
        message: "index out of bounds: the len is 1 but the index is {line}",
        project: "checkout",
        endpoint: "/api/orders",
        severity: Severity::Error,
        stack: Some(
            "thread 'tokio-runtime-worker' panicked at src/payments.rs:{line}:9:
stack backtrace:
   0: rust_begin_unwind
             at /rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/panicking.rs:689:5
   1: core::panicking::panic_fmt
             at /rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/panicking.rs:80:14
   2: core::panicking::panic_bounds_check
             at /rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/panicking.rs:271:5
   3: shop::payments::charge_card
             at ./src/payments.rs:{line}:9
   4: shop::orders::place::{{closure}}
             at ./src/orders.rs:71:14",
        ),
    },
    Failure {
        error_type: "panic",
        message: "called `Option::unwrap()` on a `None` value",
        project: "checkout",
        endpoint: "/api/carts",
        severity: Severity::Error,
        stack: Some(
            "stack backtrace:
   0: rust_begin_unwind
             at /rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/panicking.rs:689:5
   1: core::panicking::panic_fmt
             at /rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/panicking.rs:80:14
   2: shop::carts::load_discounts
             at ./src/carts.rs:{line}:22
   3: shop::carts::total::{{closure}}
             at ./src/carts.rs:30:5",
        ),
    },
    Failure {
        error_type: "runtime.Error",
        message: "runtime error: invalid memory address or nil pointer dereference",
        project: "search",
        endpoint: "/api/search",
        severity: Severity::Error,
        stack: Some(
            "goroutine {line} [running]:
runtime/debug.Stack()
\t/usr/local/go/src/runtime/debug/stack.go:26 +0x5e
panic({0x7c1f20?, 0xb2a8c0?})
\t/usr/local/go/src/runtime/panic.go:787 +0x132
main.(*Index).lookup(0x0, {0xc00012{line}, 0x7})
\t/app/index.go:{line} +0x1d
main.handleSearch({0x8a1c60, 0xc0001{line}})
\t/app/main.go:88 +0x25",
        ),
    },
    Failure {
        error_type: "org.springframework.dao.DataAccessResourceFailureException",
        message: "could not open a connection within {line} ms",
        project: "billing",
        endpoint: "/api/invoices",
        severity: Severity::Error,
        stack: Some(
            "org.springframework.dao.DataAccessResourceFailureException: could not open a connection
\tat org.springframework.jdbc.support.SQLStateSQLExceptionTranslator.doTranslate(SQLStateSQLExceptionTranslator.java:116)
\tat com.acme.billing.InvoiceStore.open(InvoiceStore.java:{line})
\tat com.acme.billing.Invoices.lambda$overdue$0(Invoices.java:57)
\tat java.base/java.util.Optional.map(Optional.java:260)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.pollConnect(Native Method)
\tat com.zaxxer.hikari.pool.HikariPool.getConnection(HikariPool.java:162)
\tat com.acme.billing.InvoiceStore.connect(InvoiceStore.java:{line})
\t... 23 more",
        ),
    },
    Failure {
        error_type: "KeyError",
        message: "'sku-{line}'",
        project: "search",
        endpoint: "/api/suggest",
        severity: Severity::Warning,
        stack: Some(
            "Traceback (most recent call last):
  File \"/usr/lib/python3.12/asyncio/runners.py\", line 194, in run
    return runner.run(main)
  File \"/app/search/suggest.py\", line {line}, in suggest
    return [rank(sku) for sku in found]
  File \"/app/search/ranking.py\", line {line}, in rank
    return WEIGHTS[sku]
KeyError: 'sku-{line}'",
        ),
    },
    Failure {
        error_type: "TypeError",
        message: "Cannot read properties of undefined (reading 'price')",
        project: "checkout",
        endpoint: "/cart",
        severity: Severity::Error,
        stack: Some(
            "TypeError: Cannot read properties of undefined (reading 'price')
    at renderLine (https://shop.example/static/js/cart.8f3a{line}.js:{line}:17)
    at Array.map (<anonymous>)
    at renderCart (https://shop.example/static/js/cart.8f3a{line}.js:310:22)
    at async onSubmit (https://shop.example/static/js/main.77ab{line}.js:12:3)",
        ),
    },
    Failure {
        error_type: "System.TimeoutException",
        message: "The operation has timed out after {line} ms.",
        project: "billing",
        endpoint: "/api/reports",
        severity: Severity::Warning,
        stack: Some(
            "System.TimeoutException: The operation has timed out.
   at System.Threading.Tasks.Task.WaitAsync(TimeSpan timeout)
   at Billing.Reports.<BuildAsync>d__{line}.MoveNext() in /src/Reports.cs:line {line}
--- End of stack trace from previous location ---
   at Billing.Jobs.Nightly.<RunAsync>d__3.MoveNext() in /src/Jobs/Nightly.cs:line 41",
        ),
    },
    Failure {
        error_type: "TimeoutError",
        message: "upstream did not answer within {line} ms",
        project: "search",
        endpoint: "/api/orders",
        severity: Severity::Error,
        stack: None,
    },
];

/// Returns the number of kinds of failures.
pub(super) const fn failures() -> usize {
    FAILURES.len()
}

/// Returns an error of a kind of failure, with numbers that vary as between requests and releases.
pub(super) fn error(number: usize, rng: &mut Rng) -> ErrorRecord<'static> {
    let failure = &FAILURES[number % FAILURES.len()];
    let line = rng.u32(100..140).to_string();
    ErrorRecord {
        trace_id: Cow::Owned(format!("{:032x}", rng.u128(..))),
        error_type: failure.error_type.into(),
        message: failure.message.replace("{line}", &line).into(),
        stack: failure.stack.map(|stack| stack.replace("{line}", &line).into()),
        project_id: Some(failure.project.into()),
        endpoint: Some(failure.endpoint.into()),
        severity: failure.severity,
        ..ErrorRecord::default()
    }
}

/// Returns the id of a container.
pub(super) fn container(organization: &str, number: u32) -> String {
    format!("{organization}-web-{number}")
}
