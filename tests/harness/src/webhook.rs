//! A webhook that records its calls and responds as the test needs.

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

/// A recorded call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body. Null if it is not JSON.
    pub body: Value,
    /// The status of the response.
    pub answered: u16,
}

impl Call {
    /// Returns the id of the notification.
    pub fn id(&self) -> &str {
        self.headers.get("webhook-id").map_or("", String::as_str)
    }

    /// Returns the status of each alert and the value of a label.
    pub fn alerts(&self, label: &str) -> Vec<(String, String)> {
        let alerts = self.body["alerts"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        alerts.iter().map(|alert| (text(&alert["status"]), text(&alert["labels"][label]))).collect()
    }
}

#[derive(Debug, Default)]
struct Received {
    calls: Vec<Call>,
    status: u16,
}

/// A webhook server.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Webhook {
    /// Starts a webhook that responds with 200.
    pub async fn start() -> Self {
        let received = Arc::new(Mutex::new(Received { status: 200, ..Received::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(any(note)).with_state(received.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, received }
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Sets the status of all further responses.
    pub fn answer_with(&self, status: u16) {
        self.received().status = status;
    }

    /// Returns all calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.received().calls.clone()
    }

    /// Returns the alerts of all successful calls so far, each as its status and the value of `label`.
    pub fn delivered(&self, label: &str) -> Vec<(String, String)> {
        let calls = self.calls().into_iter().filter(|call| call.answered == 200);
        calls.flat_map(|call| call.alerts(label)).collect()
    }

    /// Waits until the delivered alerts equal `expected`, given as statuses and values of `label`.
    pub async fn delivers(&self, label: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(status, value)| ((*status).to_owned(), (*value).to_owned())).collect();
        eventually(&format!("the webhook receives {expected:?}"), async || {
            let delivered = self.delivered(label);
            if delivered == expected { Ok(()) } else { Err(format!("{delivered:?}")) }
        })
        .await;
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn note(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let answered = received.status;
    received.calls.push(Call { headers, body: serde_json::from_slice(&body).unwrap_or_default(), answered });
    StatusCode::from_u16(answered).expect("a status")
}
