//! Questions over TCP (RFC 7766): several in a connection, answered one after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::serve::{Next, Seat, generator};
use super::{count, forward};
use crate::names::{MAX_QUERY, Transport};

/// Longest a query takes to come whole, or a reply to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a connection could not be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until it is dropped.
pub(super) async fn serve(seat: Arc<Seat>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Further connections of this sandbox wait in the kernel.
        let Ok(own) = Arc::clone(&seat.connections).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(all) = Arc::clone(&seat.service.connections).try_acquire_owned() else {
            count(&seat.service.counters.connections_refused);
            continue;
        };
        let seat = Arc::clone(&seat);
        connections.spawn(async move {
            let _seats = (own, all);
            // What goes wrong on a connection concerns its client alone.
            let _ = converse(&seat, stream).await;
        });
    }
}

async fn converse(seat: &Seat, mut stream: TcpStream) -> io::Result<()> {
    let mut rng = generator();
    loop {
        let query = timeout(PATIENCE, read(&mut stream)).await??;
        seat.wait_for_turn().await;
        let reply = match seat.judge(&query, Transport::Tcp, &mut rng) {
            Next::Reply(reply) => reply,
            Next::Forward(asked, question) => {
                forward::ask(seat, &asked, &question, &query, Transport::Tcp).await
            }
            Next::Nothing => return Ok(()),
        };
        timeout(PATIENCE, write(&mut stream, &reply)).await??;
    }
}

/// Reads a message after its length. Of one that is too long no more is read than shows it; the connection ends with
/// the refusal of it, because its rest is taken for a length.
///
/// # Errors
/// The stream ended, or there is no message in it.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length.min(MAX_QUERY + 1)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message after its length.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Reads a server's message after its length.
pub(super) async fn read_whole(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
