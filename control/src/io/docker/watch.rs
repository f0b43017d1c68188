//! Watches the engine: tells the agent's loop of networks and containers, at first and whenever something happens.
//!
//! Events only say where to look; what is told is what a look has shown. When the engine was away, everything is looked
//! at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::client::{Client, EngineError};
use crate::docker::engine::{Attached, Container, EngineNetwork, Look, PLUGIN};
use crate::io::server::explain;

/// First and longest pause before an engine that is away is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Looks at containers at a time.
const LOOKS: usize = 16;
/// News waiting for the loop.
const INBOX: usize = 64;

/// What a look has shown.
#[derive(Debug)]
pub(crate) enum News {
    /// The engine cannot be watched, and why.
    Away(String),
    /// All networks, without their containers.
    Networks(Vec<EngineNetwork>),
    /// A network that was removed, by id.
    Destroyed(String),
    /// All endpoints in networks of weft's, by id.
    Endpoints(BTreeSet<String>),
    /// Ids of all containers that run and are in networks of weft's; each is told of after that.
    Running(BTreeSet<String>),
    /// One of them, now or again.
    Container(Container),
    /// A container that is being started, as its network has it.
    Attached(Attached),
    /// A container that runs no more, by id.
    Gone(String),
}

/// The watcher, as the agent has it.
pub(crate) struct Watcher {
    pub(crate) news: mpsc::Receiver<News>,
    again: Arc<Notify>,
    task: AbortHandle,
}

impl Watcher {
    /// Begins to watch.
    pub(crate) fn start(client: Client) -> Self {
        let (told, news) = mpsc::channel(INBOX);
        let again = Arc::new(Notify::new());
        let watch = Watch { client, told, again: Arc::clone(&again), mine: BTreeSet::new() };
        Self { news, again, task: tokio::spawn(watch.run()).abort_handle() }
    }

    /// Has everything looked at again.
    pub(crate) fn look_again(&self) {
        self.again.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watch {
    client: Client,
    told: mpsc::Sender<News>,
    again: Arc<Notify>,
    /// Containers in networks of weft's.
    mine: BTreeSet<String>,
}

/// What a look at a container came to.
type Looked = (String, Result<News, EngineError>);

impl Watch {
    async fn run(mut self) {
        let mut pause = PAUSES[0];
        loop {
            let Err(fault) = self.listen(&mut pause).await;
            if self.told.send(News::Away(explain(&fault))).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Listens first and looks then, so that nothing happens in between unseen.
    async fn listen(&mut self, pause: &mut Duration) -> Result<std::convert::Infallible, EngineError> {
        let mut events = self.client.events().await?;
        let mut looks = Looks::new(self.client.clone());
        self.look_at_everything(&mut looks).await?;
        *pause = PAUSES[0];
        loop {
            tokio::select! {
                event = events.next() => {
                    let event = event?;
                    if let Some(look) = event.look() {
                        self.look(look, &mut looks).await?;
                    }
                }
                Some((id, looked)) = looks.next() => self.looked(id, looked).await,
                () = self.again.notified() => self.look_at_everything(&mut looks).await?,
            }
        }
    }

    async fn tell(&self, news: News) {
        // The loop may have ended.
        let _ = self.told.send(news).await;
    }

    async fn look_at_everything(&mut self, looks: &mut Looks) -> Result<(), EngineError> {
        let networks = self.client.networks().await?;
        let ours: BTreeSet<&str> = networks
            .iter()
            .filter(|network| network.driver == PLUGIN)
            .map(|network| network.id.as_str())
            .collect();
        let mut endpoints = BTreeSet::new();
        for id in &ours {
            match self.client.network(id).await {
                Ok(network) => {
                    endpoints.extend(network.containers.into_values().map(|there| there.endpoint_id));
                }
                Err(fault) if fault.is_missing() => {}
                Err(fault) => return Err(fault),
            }
        }
        let listed = self.client.containers().await?;
        let mine = listed.into_iter().filter(|container| {
            container.network_settings.networks.values().any(|there| ours.contains(there.network_id.as_str()))
        });
        self.mine = mine.map(|container| container.id).collect();
        self.mine.iter().for_each(|container| looks.begin(container));
        self.tell(News::Networks(networks)).await;
        self.tell(News::Endpoints(endpoints)).await;
        self.tell(News::Running(self.mine.clone())).await;
        Ok(())
    }

    async fn look(&mut self, look: Look<'_>, looks: &mut Looks) -> Result<(), EngineError> {
        match look {
            Look::Networks => self.tell(News::Networks(self.client.networks().await?)).await,
            Look::Destroyed(network) => {
                let networks = self.client.networks().await?;
                self.tell(News::Destroyed(network.to_owned())).await;
                self.tell(News::Networks(networks)).await;
            }
            Look::Connected { network, container } => {
                self.mine.insert(container.to_owned());
                looks.peek(network, container);
                looks.begin(container);
            }
            Look::Container(container) if self.mine.contains(container) => looks.begin(container),
            Look::Gone(container) if self.mine.remove(container) => {
                self.tell(News::Gone(container.to_owned())).await;
            }
            Look::Container(_) | Look::Gone(_) => {}
        }
        Ok(())
    }

    async fn looked(&self, id: String, looked: Result<News, EngineError>) {
        match looked {
            Ok(news) => self.tell(news).await,
            Err(fault) if fault.is_missing() => self.tell(News::Gone(id)).await,
            Err(fault) => {
                tracing::debug!(container = id, fault = explain(&fault), "a container was not looked at");
            }
        }
    }
}

/// Looks at containers under way: one at a time of each, so that what is told last was seen last.
struct Looks {
    client: Client,
    seats: Arc<Semaphore>,
    running: JoinSet<Looked>,
    /// Containers that are looked at, and whether they are to be once more.
    under_way: BTreeMap<String, bool>,
}

impl Looks {
    fn new(client: Client) -> Self {
        let seats = Arc::new(Semaphore::new(LOOKS));
        Self { client, seats, running: JoinSet::new(), under_way: BTreeMap::new() }
    }

    fn begin(&mut self, id: &str) {
        if let Some(again) = self.under_way.get_mut(id) {
            *again = true;
            return;
        }
        self.under_way.insert(id.to_owned(), false);
        let (client, seats, id) = (self.client.clone(), Arc::clone(&self.seats), id.to_owned());
        self.running.spawn(async move {
            let _seat = seats.acquire_owned().await;
            let looked = client.container(&id).await.map(News::Container);
            (id, looked)
        });
    }

    /// Of a container that is being started the engine says nothing until it is; its network knows its name before.
    fn peek(&mut self, network: &str, id: &str) {
        let (client, seats) = (self.client.clone(), Arc::clone(&self.seats));
        let (network, id) = (network.to_owned(), id.to_owned());
        self.running.spawn(async move {
            let _seat = seats.acquire_owned().await;
            let there = client.network(&network).await;
            let attached = there.map(|mut network| network.containers.remove(&id).unwrap_or_default());
            let news = attached.map(News::Attached);
            (String::new(), news)
        });
    }

    async fn next(&mut self) -> Option<Looked> {
        let (id, looked) = self.running.join_next().await?.ok()?;
        if self.under_way.remove(&id) == Some(true) {
            self.begin(&id);
        }
        Some((id, looked))
    }
}
