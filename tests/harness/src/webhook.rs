//! A webhook that notes how it was called, and answers as the test likes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::wait::eventually;

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body; null where it is no JSON.
    pub body: Value,
    /// With which status it was answered.
    pub answered: u16,
}

impl Call {
    /// The id under which receivers know the notification.
    pub fn id(&self) -> &str {
        self.headers.get("webhook-id").map_or("", String::as_str)
    }

    /// For each alert its status and the value of a label.
    pub fn alerts(&self, label: &str) -> Vec<(String, String)> {
        let alerts = self.body["alerts"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        alerts.iter().map(|alert| (text(&alert["status"]), text(&alert["labels"][label]))).collect()
    }
}

#[derive(Debug, Default)]
struct Book {
    calls: Vec<Call>,
    status: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl Webhook {
    /// Starts one that answers 200.
    pub async fn start() -> Self {
        let book = Arc::new(Mutex::new(Book { status: 200, ..Book::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(any(note)).with_state(book.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, book }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// How it answers from now on.
    pub fn answer_with(&self, status: u16) {
        self.book().status = status;
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.book().calls.clone()
    }

    /// What was delivered so far: for each alert of each call that was answered well its status and the value of `label`.
    pub fn delivered(&self, label: &str) -> Vec<(String, String)> {
        let calls = self.calls().into_iter().filter(|call| call.answered == 200);
        calls.flat_map(|call| call.alerts(label)).collect()
    }

    /// Waits until what was delivered is this, as statuses and values of a label.
    pub async fn delivers(&self, label: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(status, value)| ((*status).to_owned(), (*value).to_owned())).collect();
        eventually(&format!("the webhook is told {expected:?}"), async || {
            let delivered = self.delivered(label);
            if delivered == expected { Ok(()) } else { Err(format!("{delivered:?}")) }
        })
        .await;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn note(State(book): State<Arc<Mutex<Book>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let answered = book.status;
    book.calls.push(Call { headers, body: serde_json::from_slice(&body).unwrap_or_default(), answered });
    StatusCode::from_u16(answered).expect("a status")
}
