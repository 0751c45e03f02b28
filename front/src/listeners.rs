//! Where the front listens: TCP, with TLS or not, and Unix sockets.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::answer::Peer;
use crate::authority::Mended;
use crate::connection;
use crate::metrics::{dec, inc};
use crate::server::{Phase, Shared};
use crate::tls::{self, Reloading};

const BACKLOG: i32 = 1024;
/// When no file descriptor is left, one may be soon.
const SHORTAGE: Duration = Duration::from_millis(50);

/// A socket that listens; nobody takes its connections yet.
pub enum Listener {
    /// TCP; with TLS where there is one.
    Tcp(std::net::TcpListener, Option<Arc<Reloading>>),
    /// A Unix socket, which its permissions guard.
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Port 0 takes a free one, which `SocketAddr` tells.
    pub fn tcp(address: SocketAddr, tls: Option<Arc<Reloading>>) -> io::Result<(Self, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // What a process that has just ended left behind does not stop the next one.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener: std::net::TcpListener = socket.into();
        let address = listener.local_addr()?;
        Ok((Self::Tcp(listener, tls), address))
    }

    /// The path must be free; its mode is set before anybody can connect.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Unix(socket.into()))
    }

    /// For the runtime of this thread.
    pub fn start(self) -> io::Result<Started> {
        Ok(match self {
            Self::Tcp(listener, tls) => Started::Tcp(TcpListener::from_std(listener)?, tls),
            Self::Unix(listener) => Started::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// The same, known to a runtime.
pub enum Started {
    /// See `Listener`.
    Tcp(TcpListener, Option<Arc<Reloading>>),
    /// See `Listener`.
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Takes connections until the end begins.
pub async fn accept(listener: Started, shared: Arc<Shared>, mut phase: watch::Receiver<Phase>) {
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener) => accepted,
            _ = phase.wait_for(|now| *now != Phase::Running) => return,
        };
        let Ok(accepted) = accepted else {
            sleep(SHORTAGE).await;
            continue;
        };
        let metrics = &shared.metrics;
        if metrics.connections.load(Relaxed) >= shared.limits.max_connections as u64 {
            inc(&metrics.connections_refused);
            continue;
        }
        inc(&metrics.connections_accepted);
        let open = Open::new(&shared);
        let tls = match &listener {
            Started::Tcp(_, tls) => tls.clone(),
            Started::Unix(_) => None,
        };
        let phase = phase.clone();
        tokio::spawn(async move {
            carry(accepted, tls, Arc::clone(&open.0), phase).await;
        });
    }
}

async fn next(listener: &Started) -> io::Result<Accepted> {
    match listener {
        Started::Tcp(listener, _) => listener
            .accept()
            .await
            .map(|(stream, address)| Accepted::Tcp(stream, address)),
        Started::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

async fn carry(
    accepted: Accepted,
    tls: Option<Arc<Reloading>>,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    match (accepted, tls) {
        (Accepted::Unix(stream), _) => {
            let peer = Peer {
                uid: stream.peer_cred().ok().map(|credentials| credentials.uid()),
                ..Peer::default()
            };
            connection::serve(Mended::new(stream), peer, shared, phase).await;
        }
        (Accepted::Tcp(stream, address), tls) => {
            // Where it fails the connection is gone already, or slow.
            let _ = stream.set_nodelay(true);
            let mut peer = Peer {
                address: address.ip().to_canonical().to_string(),
                ..Peer::default()
            };
            let Some(tls) = tls else {
                return connection::serve(stream, peer, shared, phase).await;
            };
            let told = |error: &io::Error| {
                if let Some(reason) = tls::refusal(error) {
                    shared.host.refused(&peer.address, &reason);
                }
            };
            let shaking = async { tls.acceptor().accept(stream).await.inspect_err(told) };
            let Some(stream) = connection::shaken(shaking, &mut phase).await else {
                inc(&shared.metrics.connections_refused);
                return;
            };
            if tls.mutual() {
                peer.names = Some(tls::names(stream.get_ref().1));
            }
            connection::serve(stream, peer, shared, phase).await;
        }
    }
}

/// A connection that is open until this is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        inc(&shared.metrics.connections);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        dec(&self.0.metrics.connections);
    }
}
