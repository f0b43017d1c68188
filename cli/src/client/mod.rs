//! Speaks to the agent: HTTP + JSON over its unix socket (`weft_control::api`), and namespaces as descriptors.
//!
//! Everything runs on the calling thread: verbs that enter a namespace afterwards (`setns` is per thread) can
//! drop the client and be sure that no thread of it is left.

use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_control::api;

use crate::failure::{Failure, Outcome};

mod stream;

use stream::DescriptorStream;

/// Longest answer read, octets: a table of some hundred thousand endpoints.
const MAX_ANSWER: usize = 256 << 20;
/// How long an answer may take; an attachment that waits for addresses is answered by the agent well before.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one agent.
pub(crate) struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client of the agent at this socket; nothing is opened yet.
    ///
    /// # Errors
    /// The kernel gives no descriptors for the event loop.
    pub(crate) fn new(socket: &Path) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// The socket of the agent.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The network namespace the agent itself lives in: the host's.
    pub(crate) fn agent_namespace(&self) -> Outcome<OwnedFd> {
        let unreachable = |source| Failure::Unreachable { socket: self.socket.clone(), source };
        let stream = std::os::unix::net::UnixStream::connect(&self.socket).map_err(unreachable)?;
        let peer = getsockopt(&stream, PeerCredentials).context("ask who the agent is")?;
        let namespace = format!("/proc/{}/ns/net", peer.pid());
        let file = std::fs::File::open(&namespace)
            .with_context(|| format!("open the host's namespace {namespace} (this needs root)"))?;
        Ok(file.into())
    }

    /// Asks for a value.
    pub(crate) fn read<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        decode(&self.request(Method::GET, path, None)?)
    }

    /// Asks for a change, with an answer.
    pub(crate) fn change<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Outcome<T> {
        decode(&self.request(Method::POST, path, Some(encode(body)?))?)
    }

    /// Asks for a change whose answer says nothing.
    pub(crate) fn order<B: Serialize>(&self, path: &str, body: &B) -> Outcome {
        self.request(Method::POST, path, Some(encode(body)?)).map(drop)
    }

    /// Asks for a removal.
    pub(crate) fn remove(&self, path: &str) -> Outcome {
        self.request(Method::DELETE, path, None).map(drop)
    }

    /// The network namespace of a sandbox, as a descriptor that is good in any mount namespace.
    pub(crate) fn namespace(&self, sandbox: &str) -> Outcome<OwnedFd> {
        self.descriptor(&format!("/sandboxes/{}/namespace", segment(sandbox)))
    }

    /// The hidden namespace of a network on this host: its bridge, uplink and ports.
    pub(crate) fn hidden_namespace(&self, network: &str) -> Outcome<OwnedFd> {
        self.descriptor(&format!("/networks/{}/namespace", segment(network)))
    }

    /// The TAP of a virtual machine's endpoint, which nobody else can get afterwards.
    pub(crate) fn tap(&self, network: &str, sandbox: &str) -> Outcome<OwnedFd> {
        self.descriptor(&format!("/networks/{}/tap?name={}", segment(network), segment(sandbox)))
    }

    fn descriptor(&self, path: &str) -> Outcome<OwnedFd> {
        self.wait(async {
            let mut stream = self.upgrade(path).await?;
            stream
                .receive_descriptor()
                .await
                .context("receive a descriptor from the agent")
                .map_err(Failure::from)
        })
    }

    /// Lets the agent treat any network namespace as a sandbox of this name.
    pub(crate) fn adopt(&self, name: &str, namespace: BorrowedFd<'_>) -> Outcome<api::Sandbox> {
        let path = format!("/sandboxes/adopt?name={}", segment(name));
        let answer = self.wait(async {
            let mut stream = self.upgrade(&path).await?;
            stream.send_descriptor(namespace).await.context("send a namespace to the agent")?;
            stream.receive_line().await.context("read the agent's answer").map_err(Failure::from)
        })?;
        serde_json::from_slice(&answer).map_err(|_| Failure::refused(400, &answer))
    }

    fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Outcome<Bytes> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "weft");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).context("form a request")?;
        self.wait(async {
            let response = self.send(request).await?;
            let status = response.status();
            let body = read_whole(response).await?;
            if status.is_success() { Ok(body) } else { Err(Failure::refused(status.as_u16(), &body)) }
        })
    }

    async fn upgrade(&self, path: &str) -> Outcome<DescriptorStream> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "weft")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, api::UPGRADE_DESCRIPTOR)
            .body(Full::default())
            .context("form a request")?;
        let mut response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status().as_u16();
            return Err(Failure::refused(status, &read_whole(response).await?));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.context("hand over the connection")?;
        let Ok(parts) = upgraded.downcast::<DescriptorStream>() else {
            return Err(anyhow::anyhow!("the connection is not ours").into());
        };
        let mut stream = parts.io;
        stream.put_back(&parts.read_buf);
        Ok(stream)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Outcome<Response<Incoming>> {
        let unreachable = |source| Failure::Unreachable { socket: self.socket.clone(), source };
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(DescriptorStream::new(stream)).await.context("greet the agent")?;
        tokio::spawn(async move {
            // What goes wrong on the connection shows as the error of the request.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.context("the agent hung up").map_err(Failure::from)
    }

    fn wait<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| {
                let source = io::Error::new(io::ErrorKind::TimedOut, "no answer for a minute");
                Err(Failure::Unreachable { socket: self.socket.clone(), source })
            })
        })
    }
}

async fn read_whole(response: Response<Incoming>) -> Outcome<Bytes> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!("read the agent's answer: {error}"))?.to_bytes())
}

fn encode<B: Serialize>(body: &B) -> Outcome<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(body).context("form a request")?))
}

fn decode<T: DeserializeOwned>(answer: &[u8]) -> Outcome<T> {
    Ok(serde_json::from_slice(answer)
        .context("the agent's answer is not of the expected shape; is it this version?")?)
}

/// A text as one path segment or query value: everything but RFC 3986's unreserved characters is encoded, so
/// that what a user types is always a name and never another path.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || b"-_~".contains(&byte)
            || (byte == b'.' && !text.trim_matches('.').is_empty())
        {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
pub(crate) mod tests;
