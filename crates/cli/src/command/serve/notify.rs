//! What a service manager is told: one datagram each, where it has asked for them.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells a state, for example `READY=1`.
pub(super) fn say(state: &str) {
    let Some(name) = crate::config::notify_socket() else { return };
    let bytes = name.as_bytes();
    let address = bytes.strip_prefix(b"@").map_or_else(|| SocketAddr::from_pathname(&name), SocketAddr::from_abstract_name);
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::warn!(error = %error, "the service manager could not be told");
    }
}
