//! A minimal HTTP client for the probes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Sends a GET request for a path.
///
/// # Errors
/// If the request fails or the response is not HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    get_with(address, path, "").await
}

/// Sends a GET request for a path with a bearer token.
///
/// # Errors
/// If the request fails or the response is not HTTP.
pub async fn get_as(address: SocketAddr, path: &str, token: &str) -> Result<Answer, String> {
    get_with(address, path, &format!("Authorization: Bearer {token}\r\n")).await
}

async fn get_with(address: SocketAddr, path: &str, headers: &str) -> Result<Answer, String> {
    let said = ask(address, path, headers).await.map_err(|error| format!("GET {path} of {address}: {error}"))?;
    let (head, body) = said.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {said}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("no HTTP: {head}"))?;
    Ok(Answer { status, body: body.to_owned() })
}

async fn ask(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // With HTTP/1.0 the body ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n").as_bytes()).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}
