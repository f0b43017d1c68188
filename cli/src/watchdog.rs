//! systemd's watchdog (systemd.service(5), `WatchdogSec=`): fed for as long as the agent answers.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use weft_control::api::Status;

use crate::agent::notify;
use crate::client::Client;

/// Of a watchdog's patience: two answers may fail before the third is missed.
const PART: u32 = 3;

/// Starts to feed, where systemd asks for it: the agent is asked as any client asks, so that a loop that hangs is seen.
///
/// # Errors
/// No thread can be started.
pub(crate) fn feed(socket: &Path) -> io::Result<()> {
    let Some(patience) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let socket = socket.to_owned();
    let feeding = thread::Builder::new().name("weft-watchdog".into());
    // It ends with the process.
    feeding.spawn(move || feed_forever(&socket, patience / PART)).map(drop)
}

fn feed_forever(socket: &Path, pause: Duration) {
    loop {
        let answers = Client::new(socket).and_then(|client| client.read::<Status>("/status")).is_ok();
        if answers {
            notify(NotifyState::Watchdog);
        }
        thread::sleep(pause);
    }
}
