//! Embedded DNS: one thread that answers at 127.0.0.11 in every sandbox of a network with names.
//!
//! Each sandbox has a socket of either protocol on a port of its own inside its namespace, so that port 53 stays free
//! there; packets to port 53 of the address are rewritten to it ([`doors`]). What is answered is decided by
//! [`names`](crate::names); the view it is decided on is swapped whole by the agent's loop.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::namespace::Namespace;
use crate::model::SandboxId;
use crate::names::View;

mod doors;
mod forward;
mod serve;
mod stream;

pub(crate) use doors::{Beside, DoorsError, How};

/// Questions of all sandboxes that other servers are asked at a time, as Docker's of one.
const FORWARDS: usize = 1024;
/// TCP connections of all sandboxes at a time.
const CONNECTIONS: usize = 1024;
/// Threads that open sockets inside namespaces: with one, what is done to a namespace is done in the order it was asked.
const OPENERS: usize = 1;

/// Told once a sandbox is served, or why it is not.
pub(crate) type Opened = Box<dyn FnOnce(Result<How, DoorsError>) + Send>;

enum Order {
    Open(SandboxId, (Namespace, Beside), Opened),
    /// With the namespace, if it stays.
    Close(SandboxId, Option<Namespace>),
}

/// What was asked and what became of it.
#[derive(Debug, Default)]
pub(crate) struct DnsCounters {
    queries: AtomicU64,
    answered: AtomicU64,
    no_data: AtomicU64,
    no_name: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    delayed: AtomicU64,
    forwarded: AtomicU64,
    forward_failures: AtomicU64,
    forward_overflows: AtomicU64,
    forged_replies: AtomicU64,
    connections_refused: AtomicU64,
}

impl DnsCounters {
    /// By name.
    pub(crate) fn named(&self) -> [(&'static str, u64); 12] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("queries", read(&self.queries)),
            ("answered", read(&self.answered)),
            ("no_data", read(&self.no_data)),
            ("no_name", read(&self.no_name)),
            ("refused", read(&self.refused)),
            ("dropped", read(&self.dropped)),
            ("delayed", read(&self.delayed)),
            ("forwarded", read(&self.forwarded)),
            ("forward_failures", read(&self.forward_failures)),
            ("forward_overflows", read(&self.forward_overflows)),
            ("forged_replies", read(&self.forged_replies)),
            ("connections_refused", read(&self.connections_refused)),
        ]
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What all sandboxes share.
struct Service {
    view: watch::Receiver<Arc<View>>,
    counters: Arc<DnsCounters>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// The thread, as the agent's loop has it.
pub(crate) struct Dns {
    orders: Option<UnboundedSender<Order>>,
    view: watch::Sender<Arc<View>>,
    pub(crate) counters: Arc<DnsCounters>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Starts the thread in the caller's network namespace, which is where other servers are asked from.
    ///
    /// # Errors
    /// No more threads or descriptors.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, queue) = mpsc::unbounded_channel();
        let (view, seen) = watch::channel(Arc::default());
        let counters = Arc::new(DnsCounters::default());
        let service = Service {
            view: seen,
            counters: Arc::clone(&counters),
            forwards: Arc::new(Semaphore::new(FORWARDS)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(OPENERS).build()?;
        let thread = std::thread::Builder::new().name("weft-dns".into()).spawn(move || {
            runtime.block_on(run(queue, Arc::new(service)));
            runtime.shutdown_background();
        })?;
        Ok(Self { orders: Some(orders), view, counters, thread: Some(thread) })
    }

    /// Has questions answered by `view` from now on.
    pub(crate) fn tell(&self, view: Arc<View>) {
        self.view.send_replace(view);
    }

    /// The way to the thread.
    pub(crate) fn orders(&self) -> Orders {
        Orders(self.orders.clone())
    }
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Orders(Option<UnboundedSender<Order>>);

impl Orders {
    fn give(&self, order: Order) {
        if let Some(orders) = &self.0 {
            // A thread that is gone has panicked, which its join reports.
            let _ = orders.send(order);
        }
    }

    /// Serves a sandbox, instead of before if it was served already; `opened` is told.
    pub(crate) fn open(&self, sandbox: SandboxId, place: (Namespace, Beside), opened: Opened) {
        self.give(Order::Open(sandbox, place, opened));
    }

    /// Serves a sandbox no more; from its namespace, if it stays, is taken what was put there.
    pub(crate) fn close(&self, sandbox: SandboxId, namespace: Option<Namespace>) {
        self.give(Order::Close(sandbox, namespace));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but orders; sockets go with it.
            let _ = thread.join();
        }
    }
}

async fn run(mut orders: UnboundedReceiver<Order>, service: Arc<Service>) {
    let mut serving: BTreeMap<SandboxId, AbortHandle> = BTreeMap::new();
    let mut withdrawing = JoinSet::new();
    while let Some(order) = orders.recv().await {
        let (sandbox, next) = match order {
            Order::Open(sandbox, place, opened) => {
                let served = serve::serve(Arc::clone(&service), sandbox, place, opened);
                (sandbox, Some(tokio::spawn(served).abort_handle()))
            }
            Order::Close(sandbox, namespace) => {
                if let Some(namespace) = namespace {
                    withdrawing.spawn_blocking(move || doors::withdraw(&namespace));
                }
                (sandbox, None)
            }
        };
        let before = match next {
            Some(next) => serving.insert(sandbox, next),
            None => serving.remove(&sandbox),
        };
        if let Some(before) = before {
            before.abort();
        }
        while withdrawing.try_join_next().is_some() {}
    }
    // Where somebody else answers in weft's stead, the way to it is free then.
    withdrawing.join_all().await;
}
