//! What has to hold before anybody is served: on loopback nothing, elsewhere encryption, keys, and pools that were meant for it.

use std::fmt::Write;

use crate::config::{Configuration, Server};
use crate::exit::usage;

/// What does not depend on keys: looked at before anything is opened or made.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn before_keys(server: &Server) -> anyhow::Result<()> {
    if server.listen.is_empty() {
        return Err(usage("there is no address to listen on", "name one with --listen, for example 127.0.0.1:8720"));
    }
    let proxied = server.settings.behind_proxy.is_some();
    if server.tls_self_signed && proxied {
        return Err(usage("`tls_self_signed` stands beside `behind_proxy`", "leave one of them out"));
    }
    if is_exposed(server) && server.tls_files.is_none() && !server.tls_self_signed && !proxied {
        let hint = "give --tls-certificate and --tls-key, or --tls-self-signed, or name the proxy that ends TLS with --behind-proxy";
        return Err(usage("off loopback, `belljar serve` does not start without TLS", hint));
    }
    Ok(())
}

/// Whether it may be served. `keys`: there is one that is good.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn check(server: &Server, keys: bool, dev_key: Option<&str>) -> anyhow::Result<()> {
    if !is_exposed(server) {
        return Ok(());
    }
    let from = if server.is_loopback() { "behind a proxy" } else { "off loopback" };
    if dev_key.is_some() {
        return Err(usage(format!("`BELLJAR_DEV_KEY` is not accepted {from}"), "unset it, and make keys with `belljar keys create`"));
    }
    if !keys && server.settings.jwt.is_none() {
        return Err(usage(format!("{from}, `belljar serve` does not start without a key"), "make one with `belljar keys create`, or configure `[auth.jwt]`"));
    }
    let undeclared = server.pools.iter().find(|pool| pool.enabled.is_none());
    match undeclared.map(|pool| &pool.settings.name) {
        Some(name) => Err(usage(format!("{from}, the pool `{name}` runs no code until it is enabled"), format!("set `enabled = true` in `[pools.{name}]`"))),
        None => Ok(()),
    }
}

/// Whether others than this machine's users can reach it.
fn is_exposed(server: &Server) -> bool {
    !server.is_loopback() || server.settings.behind_proxy.is_some()
}

/// The key of development, and what to tell of it: on loopback there is one where no file says how to serve, or where nobody could call.
///
/// # Errors
/// There is no randomness.
pub(super) fn dev_key(server: &Server, given: Option<String>, keys: bool) -> anyhow::Result<(Option<String>, Option<String>)> {
    if given.is_some() {
        return Ok((given, Some("as in BELLJAR_DEV_KEY".to_owned())));
    }
    if is_exposed(server) || (server.has_file && (keys || server.settings.jwt.is_some())) {
        return Ok((None, None));
    }
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let key = random.iter().fold("bj_dev_".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok((Some(key.clone()), Some(key)))
}

/// What is set otherwise now, and cannot be taken while it runs.
pub(super) fn needs_restart(now: &Configuration, fresh: &Configuration) -> Vec<&'static str> {
    let (a, b) = (&now.server, &fresh.server);
    let pools = |server: &Server| format!("{:?}", server.pools);
    [
        ("data", now.data.value != fresh.data.value),
        ("server.listen", a.listen != b.listen),
        ("server.tls_certificate", a.tls_files != b.tls_files || a.tls_self_signed != b.tls_self_signed),
        ("server.behind_proxy", a.settings.behind_proxy != b.settings.behind_proxy),
        ("server.default_pool", a.default_pool != b.default_pool),
        ("server.durability", a.durability != b.durability),
        ("server.log_format", a.log_format != b.log_format),
        ("pools", pools(a) != pools(b)),
    ]
    .into_iter()
    .filter_map(|(name, changed)| changed.then_some(name))
    .collect()
}
