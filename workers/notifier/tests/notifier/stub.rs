//! An HTTP server with programmed responses that records all requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A recorded request.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the whole request as text, for a server that echoes it.
    fn echo(&self) -> String {
        let headers: HashMap<_, _> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        format!("Cannot {} {} with {headers:?}: {}", self.method, self.path, String::from_utf8_lossy(&self.body))
    }
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// This status, with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// This status, with the request echoed.
    Echo(u16),
    /// No response.
    Never,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

type Rule = dyn Fn(usize, &ReceivedRequest) -> Answer + Send + Sync;

/// The server. It runs until dropped.
pub(crate) struct Stub {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    server: JoinHandle<()>,
}

impl Stub {
    /// Starts a server that chooses its response by a function of the number of earlier requests.
    pub(crate) async fn start(rule: impl Fn(usize, &ReceivedRequest) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (rule, kept): (Arc<Rule>, _) = (Arc::new(rule), requests.clone());
        let app = Router::new().fallback(move |request: Request| answer(rule.clone(), kept.clone(), request));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, requests, server }
    }

    /// Starts a server that always returns the same response.
    pub(crate) async fn always(answer: Answer) -> Self {
        Self::start(move |_, _| answer.clone()).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(rule: Arc<Rule>, kept: Arc<Mutex<Vec<ReceivedRequest>>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    let requests =
        ReceivedRequest { method: head.method.to_string(), path: head.uri.to_string(), headers: head.headers, body };
    let answer = {
        let mut kept = kept.lock().unwrap();
        kept.push(requests.clone());
        rule(kept.len() - 1, &requests)
    };
    let (status, headers, body) = match answer {
        Answer::Status(status, headers, body) => (status, headers, body),
        Answer::Echo(status) => (status, Vec::new(), requests.echo()),
        Answer::Never => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}
