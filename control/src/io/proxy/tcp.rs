//! Relays connections, each direction for itself to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of one port at a time; more wait to be accepted.
const MOST: usize = 256;
/// Longest to connect to the sandbox.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure to accept, which is most likely a lack of descriptors.
const REST: Duration = Duration::from_millis(100);

/// Relays what `socket` accepts to `target`, for ever.
pub(super) async fn serve(socket: Socket, target: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::from_std(socket.into())?;
    let free = Arc::new(Semaphore::new(MOST));
    let mut relays = JoinSet::new();
    loop {
        let Ok(seat) = Arc::clone(&free).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((client, _)) => {
                relays.spawn(async move {
                    relay(client, target).await;
                    drop(seat);
                });
            }
            Err(fault) => {
                tracing::debug!(%fault, "a connection could not be accepted");
                tokio::time::sleep(REST).await;
            }
        }
        while relays.try_join_next().is_some() {}
    }
}

/// A client whose sandbox does not answer is reset, as if nothing listened.
async fn relay(mut client: TcpStream, target: SocketAddr) {
    let Ok(Ok(mut sandbox)) = timeout(PATIENCE, TcpStream::connect(target)).await else {
        let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
        return;
    };
    for stream in [&client, &sandbox] {
        // Of no consequence where they are refused: delay, and peers that vanished held for longer.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(stream).set_keepalive(true);
    }
    if copy_bidirectional(&mut client, &mut sandbox).await.is_err() {
        // One end was reset, so the other is.
        for stream in [&client, &sandbox] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}
