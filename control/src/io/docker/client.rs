//! A client of this host's Docker engine: HTTP and JSON over its unix socket, a connection for each request.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::{ErrorMessage, NetworkCreated};
use crate::docker::engine::{Container, EngineNetwork, Event, Listed, MakeNetwork};

/// Longest answer read, octets: some thousand containers.
const MAX_ANSWER: usize = 16 << 20;
/// Longest event, octets; labels of a container are in it.
const MAX_EVENT: usize = 1 << 20;
/// Most octets of the engine's words that are passed on.
const MAX_WORDS: usize = 300;
/// Longest an answer takes. An engine answers about a container that is being started once it is.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is listened to: `{"type":["network","container"]}`.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22network%22%2C%22container%22%5D%7D";

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Nobody is there.
    #[error("cannot reach Docker's engine at {socket}")]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It does not speak HTTP, or hung up.
    #[error("Docker's engine hung up")]
    Broken(#[from] hyper::Error),
    /// It takes too long.
    #[error("Docker's engine gave no answer in {} s", PATIENCE.as_secs())]
    Late,
    /// It refused.
    #[error("Docker's engine says: {message}")]
    Refused { status: StatusCode, message: String },
    /// What it says cannot be read.
    #[error("Docker's engine says what cannot be read: {0}")]
    Unread(String),
}

impl EngineError {
    /// Whether what was asked for is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

type Result<T> = std::result::Result<T, EngineError>;

/// A client of one engine.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the engine at this socket; nothing is opened yet.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// All networks, without containers.
    ///
    /// # Errors
    /// The engine's, as of every other call.
    pub(crate) async fn networks(&self) -> Result<Vec<EngineNetwork>> {
        self.read("/networks").await
    }

    /// A network with its containers.
    pub(crate) async fn network(&self, id: &str) -> Result<EngineNetwork> {
        self.read(&format!("/networks/{}", segment(id)?)).await
    }

    /// Containers that run.
    pub(crate) async fn containers(&self) -> Result<Vec<Listed>> {
        self.read("/containers/json").await
    }

    /// A container; of one that is being started, once it is.
    pub(crate) async fn container(&self, id: &str) -> Result<Container> {
        self.read(&format!("/containers/{}/json", segment(id)?)).await
    }

    /// Makes a network; tells its id.
    pub(crate) async fn make_network(&self, network: &MakeNetwork) -> Result<String> {
        let body = serde_json::to_vec(network).map_err(|fault| EngineError::Unread(fault.to_string()))?;
        let answer = self.ask(Method::POST, "/networks/create", body).await?;
        let made: NetworkCreated =
            serde_json::from_slice(&answer).map_err(|fault| EngineError::Unread(fault.to_string()))?;
        Ok(made.id)
    }

    /// Removes a network; one that is not there is no fault.
    pub(crate) async fn remove_network(&self, id: &str) -> Result<()> {
        match self.ask(Method::DELETE, &format!("/networks/{}", segment(id)?), Vec::new()).await {
            Err(fault) if fault.is_missing() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Events of networks and containers from now on.
    pub(crate) async fn events(&self) -> Result<Events> {
        let response = within(self.send(Method::GET, EVENTS, Vec::new())).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, &within(whole(response)).await?));
        }
        Ok(Events { body: response.into_body(), heard: Vec::new() })
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.ask(Method::GET, path, Vec::new()).await?;
        serde_json::from_slice(&answer).map_err(|fault| EngineError::Unread(fault.to_string()))
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes> {
        within(async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let answer = whole(response).await?;
            if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
        })
        .await
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>> {
        let unreachable = |source| EngineError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What goes wrong on the connection shows as the error of the request; it ends with the answer.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(HOST, "docker");
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|fault| EngineError::Unread(fault.to_string()))?;
        Ok(sender.send_request(request).await?)
    }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, work).await.unwrap_or(Err(EngineError::Late))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|fault| EngineError::Unread(fault.to_string()))?.to_bytes())
}

/// The engine's words are `{"message": "…"}`.
fn refused(status: StatusCode, answer: &[u8]) -> EngineError {
    let said = serde_json::from_slice(answer).map(|ErrorMessage { message }| message);
    let message = said.unwrap_or_else(|_| String::from_utf8_lossy(answer).into_owned());
    let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    EngineError::Refused { status, message: printable.take(MAX_WORDS).collect() }
}

/// An id as a segment of a path: it comes from the engine, which could say anything.
fn segment(id: &str) -> Result<&str> {
    if !id.is_empty() && id.bytes().all(|octet| octet.is_ascii_alphanumeric()) {
        Ok(id)
    } else {
        Err(EngineError::Unread(format!("{:?} is no id", id.chars().take(80).collect::<String>())))
    }
}

/// Events as they come.
pub(crate) struct Events {
    body: Incoming,
    heard: Vec<u8>,
}

impl Events {
    /// The next event. Nothing is lost if it is not waited for to the end.
    ///
    /// # Errors
    /// The engine ended, or says what is no event.
    pub(crate) async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(end) = self.heard.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|fault| EngineError::Unread(fault.to_string()));
            }
            if self.heard.len() > MAX_EVENT {
                return Err(EngineError::Unread("an event without an end".to_owned()));
            }
            let frame =
                self.body.frame().await.ok_or_else(|| EngineError::Unread("the end of events".into()))??;
            self.heard.extend(frame.into_data().unwrap_or_default());
        }
    }
}
