//! One front: its methods and listeners, its thread, and how it ends.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::answer::{Answer, Host, Kind, Method, Refusals};
use crate::limits::{Limits, Load};
use crate::listeners::{self, Listener};
use crate::metrics::{MethodMetrics, Metrics};
use crate::pool::Pool;

/// A method and how it is called.
pub struct Route {
    /// As in `/package.Service/Method`.
    pub name: String,
    /// How many messages travel.
    pub kind: Kind,
    /// Whether the method reads what metadata a caller added.
    pub wants_pairs: bool,
    /// Answers.
    pub method: Box<dyn Method>,
    /// Made at start.
    pub refusals: Refusals,
    /// Of its calls.
    pub metrics: MethodMetrics,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What all connections and calls share.
pub struct Shared {
    /// By name.
    pub routes: HashMap<String, Arc<Route>>,
    /// Of the calls of all other methods.
    pub unknown: MethodMetrics,
    /// Where the methods live.
    pub host: Box<dyn Host>,
    /// What a peer is told who may not call.
    pub foreign_peer: Answer,
    /// As set.
    pub limits: Limits,
    /// What is on the front's hands.
    pub load: Arc<Load>,
    /// What waits for a thread.
    pub pool: Pool,
    /// What is counted.
    pub metrics: Metrics,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Calls are taken.
    Running,
    /// No new calls; those that are being answered have this long.
    Draining(Duration),
}

/// One front.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<Listener>>,
    phase: watch::Sender<Phase>,
}

impl Server {
    /// Listens nowhere yet.
    pub fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            listeners: Mutex::default(),
            phase: watch::Sender::new(Phase::Running),
        }
    }

    /// What is shared.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Connections wait in its queue until `run`.
    pub fn add(&self, listener: Listener) {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    /// Begins the end; `run` returns after `grace` at the latest. May be called from any thread.
    pub fn drain(&self, grace: Duration) {
        self.phase.send_replace(Phase::Draining(grace));
    }

    /// Carries calls on this thread until the end.
    pub fn run(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listeners = std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        runtime.block_on(async {
            for listener in listeners {
                tokio::spawn(listeners::accept(
                    listener.start()?,
                    Arc::clone(&self.shared),
                    self.phase.subscribe(),
                ));
            }
            let mut phase = self.phase.subscribe();
            let mut grace = Duration::ZERO;
            // The sender lives in self.
            if let Ok(now) = phase.wait_for(|now| *now != Phase::Running).await {
                if let Phase::Draining(given) = *now {
                    grace = given;
                }
            }
            let _ = tokio::time::timeout(grace, self.wait_idle()).await;
            Ok(())
        })
    }

    async fn wait_idle(&self) {
        while self.shared.metrics.connections.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
