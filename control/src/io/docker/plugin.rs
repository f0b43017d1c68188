//! The plugin's socket: reads what the engine calls for, hands it to the agent's loop, words the answers.
//!
//! Whoever gets at the socket may call: bodies, connections and waits are bounded. An engine gives a call up after 30 s,
//! so each is answered before that, if only by a failure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::docker::protocol::{CONTENT_TYPE, Request as Asked, read};
use crate::io::server::{Answer, Call, Desk, Refusal, serve_each};

/// Name of the socket, which is that of the driver.
const SOCKET: &str = "weft.sock";
/// Longest body of a request, octets.
const MAX_BODY: usize = 64 << 10;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 256;
/// Longest a caller takes to send a request's head or body.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest a call takes to be answered.
const ANSWER: Duration = Duration::from_secs(20);

/// Path of the socket in the directory where the engine looks for plugins.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

/// Binds the socket, mode 0600, in a directory that is made if needed.
///
/// # Errors
/// The path is not to be had.
pub(crate) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until dropped.
pub(crate) async fn serve(listener: UnixListener, asked: mpsc::Sender<crate::io::server::Asked>) {
    let desk = Desk::new(asked);
    let router = Router::new().fallback(move |request: Request| reply(desk.clone(), request));
    serve_each(&listener, (MAX_CONNECTIONS, PATIENCE), |_| router.clone()).await;
}

async fn reply(desk: Desk, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let body = match timeout(PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let Some((family, request)) = read(parts.uri.path(), &body) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let outcome = match request {
        Ok(Asked::Answered(value)) => Ok(value.to_string().into_bytes()),
        Ok(Asked::Asked(call)) => ask(&desk, call).await.map_err(|refusal| refusal.message),
        Err(fault) => Err(fault.to_string()),
    };
    if let Err(text) = &outcome {
        tracing::debug!(call = parts.uri.path(), text, "a call of Docker's is refused");
    }
    spoken(outcome.unwrap_or_else(|text| Value::to_string(&family.failure(&text)).into_bytes()))
}

async fn ask(desk: &Desk, call: crate::docker::protocol::Call) -> Result<Vec<u8>, Refusal> {
    match timeout(ANSWER, desk.ask(Call::Docker(call))).await {
        Ok(Ok(Answer::Json(_, body))) => Ok(body),
        Ok(Ok(_)) => Ok(b"{}".to_vec()),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => {
            let text = format!("the agent has not done it in {} s", ANSWER.as_secs());
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, text))
        }
    }
}

fn spoken(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from(body)).into_response()
}
