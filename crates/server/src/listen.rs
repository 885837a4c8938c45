//! Connections: where they come from, how many there may be, and how long each may take.

mod seats;
mod strict;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::aca;
use crate::app::{App, router};
use crate::metrics;
use crate::tls::Tls;
use seats::{Seats, Taken};
use strict::Strict;

pub(crate) use seats::{Asking, Seat};
#[cfg(feature = "fuzzing")]
pub use strict::{Framing, framing};

/// The largest head of a request, and the most headers in it.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// Before connections are accepted again, when there was no descriptor left for one.
const BREATH: Duration = Duration::from_millis(50);
/// What a connection gets that there is no room for.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// An address.
    Remote {
        /// Its address and port.
        address: SocketAddr,
        /// The address that it reached us on, where only this machine has it.
        loopback: Option<IpAddr>,
        /// It came over TLS.
        is_encrypted: bool,
    },
    /// The user that runs this server, or root, on this machine.
    Local {
        /// Which of them.
        uid: u32,
    },
}

/// Where connections come in.
pub enum Listener {
    /// On an address; with TLS where that is given.
    Tcp(TcpListener, Option<Arc<Tls>>),
    /// On a socket in the file system, which is removed with this.
    Unix(UnixListener, SocketFile),
}

/// A socket's file; removed with this.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens on a socket in the file system, for its owner and root only. One that nobody answers on is replaced.
    ///
    /// # Errors
    /// Somebody answers there; the folder cannot be written; the path is too long for a socket.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else stands there"));
                }
                std::fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        // Until here somebody else could connect, if the folder lets them; who it is is asked of every connection.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener, SocketFile(path.to_owned())))
    }
}

/// What every connection needs.
struct Hall {
    app: Arc<App>,
    routes: Router,
    seats: Arc<Seats>,
    stop: CancellationToken,
    connections: TaskTracker,
}

/// Serves on these listeners until `stop` is cancelled, then lets requests that are being answered end. Drop it to end them at once.
pub async fn serve(app: Arc<App>, listeners: Vec<Listener>, stop: CancellationToken) {
    let routes = router(Arc::clone(&app));
    serve_routes(app, routes, listeners, stop).await;
}

/// As [`serve`], with these routes.
pub(crate) async fn serve_routes(app: Arc<App>, routes: Router, listeners: Vec<Listener>, stop: CancellationToken) {
    metrics::install();
    let hall = Arc::new(Hall { routes, app, seats: Arc::default(), stop, connections: TaskTracker::new() });
    let _ending = CallOff(hall.stop.clone());
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(metrics::upkeep());
    for listener in listeners {
        let hall = Arc::clone(&hall);
        loops.spawn(async move {
            let stop = hall.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(&hall, &listener) => {}
            }
        });
    }
    hall.stop.cancelled().await;
    loops.shutdown().await;
    hall.connections.close();
    hall.connections.wait().await;
}

/// Calls it off when it is dropped.
struct CallOff(CancellationToken);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn accept(hall: &Arc<Hall>, listener: &Listener) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let accepted = match listener {
            Listener::Tcp(listener, tls) => listener.accept().await.map(|(stream, address)| remote(hall, stream, address, tls.clone())),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| local(hall, stream, own)),
        };
        if let Err(error) = accepted {
            tracing::warn!(error = %error, "a connection could not be accepted");
            tokio::time::sleep(BREATH).await;
        }
    }
}

fn remote(hall: &Arc<Hall>, stream: TcpStream, address: SocketAddr, tls: Option<Arc<Tls>>) {
    let limits = hall.app.settings().limits;
    let Some(taken) = hall.seats.take(Some(address.ip()), limits.max_connections, limits.max_connections_per_address) else {
        if tls.is_none() {
            let _ = stream.try_write(NO_ROOM);
        }
        return;
    };
    let _ = stream.set_nodelay(true);
    let loopback = stream.local_addr().ok().map(|own| own.ip().to_canonical()).filter(IpAddr::is_loopback);
    let peer = Peer::Remote { address, loopback, is_encrypted: tls.is_some() };
    let within = Arc::clone(hall);
    hall.connections.spawn(async move {
        match tls {
            None => converse(&within, stream, peer, taken).await,
            Some(tls) => {
                if let Ok(Ok(stream)) = tokio::time::timeout(limits.header_timeout, tls.accept(stream)).await {
                    converse(&within, stream, peer, taken).await;
                }
            }
        }
    });
}

fn local(hall: &Arc<Hall>, mut stream: UnixStream, own: u32) {
    let uid = stream.peer_cred().map(|credentials| credentials.uid());
    let Some(uid) = uid.ok().filter(|uid| *uid == own || *uid == 0) else {
        metrics::refused("foreign_user");
        tracing::warn!("a connection of another user was closed");
        return;
    };
    let within = Arc::clone(hall);
    hall.connections.spawn(async move {
        let limits = within.app.settings().limits;
        match within.seats.take(None, limits.max_connections, limits.max_connections_per_address) {
            Some(taken) => converse(&within, stream, Peer::Local { uid }, taken).await,
            None => drop(stream.write_all(NO_ROOM).await),
        }
    });
}

/// Answers what comes in on a connection, until either end has enough.
async fn converse<S: AsyncRead + AsyncWrite + Send + 'static>(hall: &Hall, stream: S, peer: Peer, taken: Taken) {
    let limits = hall.app.settings().limits;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.body_timeout));
    let stream = Strict::new(Box::pin(stream), limits.header_timeout);
    let seat = Arc::clone(&taken.seat);
    let routes = hall.routes.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(&seat));
        aca::rewrite(request)
    });
    let mut http = http1::Builder::new();
    // The time from one request to the end of the next one's headers; that from their first byte is watched over by `Strict`.
    http.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout);
    http.max_headers(MAX_HEADERS).max_header_size(MAX_HEAD_BYTES);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    let mut stopping = std::pin::pin!(hall.stop.cancelled());
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "a connection ended early");
                }
                return;
            }
            () = taken.seat.called_away() => return,
            () = &mut stopping, if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
