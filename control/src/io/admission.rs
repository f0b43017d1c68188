//! Admission over TCP: both sides' messages, each behind its length, in bounded time and memory.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::node::wall;
use super::streams::Guest;
use crate::admission::{
    AdmissionError, Answer, Errand, FIRST_OCTET, Initiator, MAX_STRANGER, Outcome, Presented, Question,
    Refusal, Responder, Step,
};
use crate::identity::Identity;
use crate::timestamp::UnixMillis;

/// Longest that one message of the other side takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest that a stranger's first message takes.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// Longest that the loop takes to decide, a write to disk included.
const DECISION: Duration = Duration::from_secs(10);

/// A question on its way to the loop.
pub(crate) struct Asking {
    pub(crate) question: Question,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// An exchange that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    /// It does not answer.
    #[error("it does not answer")]
    Silent,
    /// What was said.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
}

/// Does an errand with the member at `to`, from the address `from` where that matters.
///
/// # Errors
/// It cannot be reached, is none, or said no.
pub(crate) async fn ask(
    to: SocketAddr,
    from: Option<IpAddr>,
    node: &Identity,
    errand: Errand,
) -> Result<Outcome, AskError> {
    let (mut initiator, first) = Initiator::new(node, errand, seed()?)?;
    let mut stream = timeout(PATIENCE, connect(to, from)).await.map_err(|_| AskError::Silent)??;
    stream.write_all(&[FIRST_OCTET]).await?;
    let mut message = first;
    loop {
        write(&mut stream, &message).await?;
        let read = timeout(DECISION, read(&mut stream, usize::from(u16::MAX))).await;
        let answer = read.map_err(|_| AskError::Silent)??;
        match initiator.handle(now(), &answer)? {
            Step::Send(next) => message = next,
            Step::Done(outcome) => return Ok(*outcome),
        }
    }
}

async fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Answers one stranger.
///
/// # Errors
/// It said nothing that makes sense, or hung up.
pub(crate) async fn serve(
    guest: Guest,
    presented: Presented,
    desk: mpsc::Sender<Asking>,
) -> Result<(), AskError> {
    let Guest { first, mut stream, seat, .. } = guest;
    let _kept = seat;
    if first != FIRST_OCTET {
        return Err(AdmissionError::Garbled.into());
    }
    let mut responder = Responder::new(&presented, seed()?)?;
    let message = within(FIRST_PATIENCE, read(&mut stream, MAX_STRANGER)).await?;
    write(&mut stream, &responder.greet(now(), &message)?).await?;
    let message = within(PATIENCE, read(&mut stream, MAX_STRANGER)).await?;
    let mut answer = match responder.listen(now(), &message)? {
        Ok(question) => decide(&desk, question).await,
        Err(refusal) => Answer::Refused(refusal),
    };
    write(&mut stream, &responder.answer(&answer)?).await?;
    if matches!(answer, Answer::Terms(_)) {
        let message = within(PATIENCE, read(&mut stream, MAX_STRANGER)).await?;
        answer = decide(&desk, responder.certificate(&message)?).await;
        write(&mut stream, &responder.answer(&answer)?).await?;
    }
    // The other side hangs up, so that its host and not this one keeps the port for a minute.
    let _ = timeout(PATIENCE, stream.read_u8()).await;
    Ok(())
}

async fn decide(desk: &mpsc::Sender<Asking>, question: Question) -> Answer {
    let (answer, answered) = oneshot::channel();
    let busy = || Answer::Refused(Refusal::Trouble("it is busy; try again".to_owned()));
    if desk.send(Asking { question, answer }).await.is_err() {
        return busy();
    }
    timeout(DECISION, answered).await.ok().and_then(Result::ok).unwrap_or_else(busy)
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, AskError> {
    Ok(timeout(time, work).await.map_err(|_| AskError::Silent)??)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> Result<(), AskError> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    within(PATIENCE, stream.write_all(&framed)).await
}

async fn read(stream: &mut TcpStream, longest: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > longest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(seed)
}

fn now() -> UnixMillis {
    UnixMillis(wall())
}
