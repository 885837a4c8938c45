//! Connections: where they come from, how many there may be, and how long each may take.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::app::{App, router};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// An address.
    Remote {
        /// Its address and port.
        address: SocketAddr,
        /// It reached us on an address that only this machine has.
        loopback: bool,
        /// The connection is encrypted.
        tls: bool,
    },
    /// The user that runs this server, or root, on this machine.
    Local {
        /// Which of them.
        uid: u32,
    },
}

/// Serves on a listener until the task is dropped.
///
/// # Errors
/// Never as things are; a listener that is gone.
pub async fn serve(app: Arc<App>, listener: TcpListener) -> io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let routes: Router = router(Arc::clone(&app));
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // No descriptors left, most of the time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let limits = app.settings().limits;
        let peer = Peer::Remote { address, loopback, tls: false };
        let service = routes.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            request
        });
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
            let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
        });
    }
}
