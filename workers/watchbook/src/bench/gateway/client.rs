//! An HTTP client with one keep-alive connection to the gateway.

use std::net::SocketAddr;

use anyhow::Context;
use axum::body::{Body, to_bytes};
use axum::http::request::Builder;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Maximum size of a response that is read whole. The bench requests no pages that large.
const ANSWER_BYTES: usize = 64 << 20;

pub(super) struct Client {
    requests: SendRequest<Body>,
    host: String,
    authorization: HeaderValue,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect to the gateway")?;
        stream.set_nodelay(true).context("connect to the gateway")?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await.context("start HTTP with the gateway")?;
        // It ends with the last request. If it fails earlier, the next request reports why.
        tokio::spawn(connection);
        let authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).context("build the header with the token")?;
        Ok(Self { requests, host: address.to_string(), authorization })
    }

    /// Sends a GET request and returns the body of the response once its headers arrived.
    ///
    /// # Errors
    /// If the status is not 200.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Body> {
        let request = Request::builder().method(Method::GET).uri(path);
        let answer = self.send(request, Body::empty()).await.with_context(|| format!("GET {path}"))?;
        let (status, body) = (answer.status(), answer.into_body());
        if status != StatusCode::OK {
            let said = to_bytes(body, ANSWER_BYTES).await.unwrap_or_default();
            anyhow::bail!("GET {path} returned {status}: {}", String::from_utf8_lossy(&said));
        }
        Ok(body)
    }

    /// Sends a GET request and returns the response as JSON.
    pub(super) async fn json(&mut self, path: &str) -> anyhow::Result<Value> {
        let body = self.get(path).await?;
        let body = to_bytes(body, ANSWER_BYTES).await.with_context(|| format!("read the response to GET {path}"))?;
        serde_json::from_slice(&body).with_context(|| format!("parse the response to GET {path} as JSON"))
    }

    /// Posts JSON and reads the response.
    ///
    /// # Errors
    /// If the status is not 202.
    pub(super) async fn post(&mut self, path: &str, organization: &str, body: String) -> anyhow::Result<()> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-organization", organization);
        let answer = self.send(request, Body::from(body)).await.with_context(|| format!("POST {path}"))?;
        let status = answer.status();
        let said = to_bytes(answer.into_body(), ANSWER_BYTES).await.with_context(|| format!("POST {path}"))?;
        let is_accepted = status == StatusCode::ACCEPTED;
        anyhow::ensure!(is_accepted, "POST {path} returned {status}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    async fn send(&mut self, request: Builder, body: Body) -> anyhow::Result<Response<Body>> {
        self.requests.ready().await?;
        let request =
            request.header(header::HOST, &self.host).header(header::AUTHORIZATION, &self.authorization).body(body)?;
        Ok(self.requests.send_request(request).await?.map(Body::new))
    }
}
