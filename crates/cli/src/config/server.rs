//! The server's part of the configuration: where it listens, whom it answers, and its pools.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use engine::session::SessionPoolSettings;
use engine::{Imports, Limits, PoolSettings};
use server::settings::{DoorLimits, JwksSource, JwtSettings, Settings, Share};

use super::section::{Line, Names, section};
use super::{FileLimits, Origin, Spawning};
use crate::exit::usage;

section! {
    /// `[server]`
    ServerSection {
        listen: Names,
        tls_certificate: PathBuf,
        tls_key: PathBuf,
        tls_self_signed: bool,
        behind_proxy: String,
        hosts: Names,
        origins: Names,
        default_pool: String,
        shutdown_grace_seconds: u64,
        msi_token: bool,
        durability: Durability,
        log_format: LogFormat,
    } with {
        limits: LimitsSection,
        callers: CallersSection,
    }
}

section! {
    /// `[server.limits]`
    LimitsSection {
        max_connections: usize,
        max_connections_per_address: usize,
        wrong_keys_per_minute: u32,
        header_timeout_seconds: u64,
        idle_timeout_seconds: u64,
        body_timeout_seconds: u64,
        body_bytes: u64,
        upload_bytes: u64,
    }
}

section! {
    /// `[server.callers]`
    CallersSection {
        max_sessions: usize,
        max_executions: usize,
        requests_per_minute: u32,
        bytes_per_hour: u64,
    }
}

section! {
    /// `[auth.jwt]`
    JwtSection {
        issuer: String,
        audiences: Names,
        jwks_file: PathBuf,
        jwks_url: String,
        jwks_certificates: PathBuf,
        role_claim: String,
        roles: BTreeMap<String, String>,
        pools_claim: String,
    }
}

section! {
    /// `[pools.<name>]`
    PoolSection {
        enabled: bool,
        backend: String,
        environment: String,
        network: String,
        process_spawning: Spawning,
        shell: Spawning,
        profile: String,
        ready: usize,
        max_sessions: usize,
        idle_timeout_seconds: u64,
        max_lifetime_seconds: u64,
        allocation_wait_seconds: u64,
        create_on_use: bool,
        region: String,
        template_bytes: u64,
        reserve_bytes: u64,
    } with {
        limits: FileLimits,
    }
}

/// What "on record" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    Full,
    Normal,
}

/// How the log is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// `[auth]`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthSection {
    pub(crate) jwt: Option<JwtSection>,
}

/// The tables of one layer that are the server's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    pub(crate) server: ServerSection,
    pub(crate) jwt: JwtSection,
    pub(crate) pools: BTreeMap<String, PoolSection>,
}

/// What pools take from the top of the file where they say nothing.
pub(crate) struct Inherited<'a> {
    pub(crate) environment: &'a str,
    pub(crate) process_spawning: bool,
    pub(crate) limits: Limits,
}

/// A pool as it is declared.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) enabled: Option<bool>,
    pub(crate) settings: SessionPoolSettings,
}

/// Everything that is configured of the server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) tls_files: Option<(PathBuf, PathBuf)>,
    pub(crate) tls_self_signed: bool,
    pub(crate) default_pool: String,
    pub(crate) shutdown_grace: Duration,
    pub(crate) durability: Durability,
    pub(crate) log_format: LogFormat,
    pub(crate) settings: Settings,
    pub(crate) pools: Vec<Pool>,
    /// A file says something: this is not the first try of somebody who has just installed it.
    pub(crate) has_file: bool,
    lines: Vec<Line>,
}

type Layers<'a> = [(&'a Tables, Origin)];

impl Server {
    /// Puts the layers together, the lowest first, and checks them.
    ///
    /// # Errors
    /// A value that cannot be, with its remedy.
    pub(crate) fn resolve(layers: &Layers<'_>, inherited: &Inherited<'_>) -> anyhow::Result<Self> {
        let sections: Vec<_> = layers.iter().map(|(tables, origin)| (&tables.server, *origin)).collect();
        let own = ServerSection::merge(&sections);
        let jwts: Vec<_> = layers.iter().map(|(tables, origin)| (&tables.jwt, *origin)).collect();
        let jwt = JwtSection::merge(&jwts);
        let (limits, callers) = (below(layers, |server| server.limits.as_ref()), below(layers, |server| server.callers.as_ref()));
        let mut lines = ServerSection::lines(&sections, "server");
        lines.extend(LimitsSection::lines(&limits, "server.limits"));
        lines.extend(CallersSection::lines(&callers, "server.callers"));
        lines.extend(JwtSection::lines(&jwts, "auth.jwt"));
        let pools = pools(layers, inherited, &mut lines)?;
        let (limits, callers) = (LimitsSection::merge(&limits), CallersSection::merge(&callers));
        Ok(Self {
            listen: own.listen.iter().flat_map(Names::list).map(|address| socket_address(&address)).collect::<anyhow::Result<_>>()?,
            tls_files: tls_files(&own)?,
            tls_self_signed: own.tls_self_signed.unwrap_or_default(),
            default_pool: default_pool(own.default_pool.as_deref(), &pools)?,
            shutdown_grace: Duration::from_secs(own.shutdown_grace_seconds.unwrap_or_default()),
            durability: own.durability.unwrap_or(Durability::Full),
            log_format: own.log_format.unwrap_or(LogFormat::Text),
            settings: Settings {
                hosts: own.hosts.as_ref().map(Names::list).unwrap_or_default(),
                origins: own.origins.as_ref().map(Names::list).unwrap_or_default(),
                behind_proxy: own.behind_proxy.clone(),
                msi_token: own.msi_token.unwrap_or_default(),
                limits: door_limits(&limits)?,
                share: share(&callers)?,
                jwt: jwt_settings(&jwt)?,
            },
            has_file: layers.iter().any(|(_, origin)| *origin == Origin::File),
            pools,
            lines,
        })
    }

    /// Every value with its origin.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether only this machine can reach it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.listen.iter().all(|address| address.ip().to_canonical().is_loopback())
    }
}

fn below<'a, T>(layers: &Layers<'a>, of: impl Fn(&'a ServerSection) -> Option<&'a T>) -> Vec<(&'a T, Origin)> {
    layers.iter().filter_map(|(tables, origin)| Some((of(&tables.server)?, *origin))).collect()
}

/// An address with its port; `localhost` is the one of version 4.
fn socket_address(text: &str) -> anyhow::Result<SocketAddr> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = numeric.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| usage(format!("`{text}` is no address to listen on"), "give an address and a port, for example 127.0.0.1:8720 or [::1]:8720"))
}

fn tls_files(own: &ServerSection) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    match (&own.tls_certificate, &own.tls_key) {
        (Some(certificate), Some(key)) if own.tls_self_signed != Some(true) => Ok(Some((certificate.clone(), key.clone()))),
        (Some(_), Some(_)) => Err(usage("`tls_self_signed` stands beside a certificate", "leave one of them out")),
        (None, None) => Ok(None),
        _ => Err(usage("`tls_certificate` and `tls_key` go together", "give both")),
    }
}

fn seconds(name: &str, value: Option<u64>) -> anyhow::Result<Duration> {
    match value {
        Some(value @ 1..=31_536_000) => Ok(Duration::from_secs(value)),
        other => Err(usage(format!("`{name}` is {}", other.unwrap_or_default()), "give seconds from 1 to 31536000")),
    }
}

fn at_least_one<T: PartialEq + Default + Copy>(name: &str, value: Option<T>) -> anyhow::Result<T> {
    value.filter(|value| *value != T::default()).ok_or_else(|| usage(format!("`{name}` is 0"), "leave it out to keep the default"))
}

fn door_limits(limits: &LimitsSection) -> anyhow::Result<DoorLimits> {
    Ok(DoorLimits {
        max_connections: at_least_one("max_connections", limits.max_connections)?,
        max_connections_per_address: at_least_one("max_connections_per_address", limits.max_connections_per_address)?,
        wrong_keys_per_minute: limits.wrong_keys_per_minute.unwrap_or_default(),
        header_timeout: seconds("header_timeout_seconds", limits.header_timeout_seconds)?,
        idle_timeout: seconds("idle_timeout_seconds", limits.idle_timeout_seconds)?,
        body_timeout: seconds("body_timeout_seconds", limits.body_timeout_seconds)?,
        body_bytes: at_least_one("body_bytes", limits.body_bytes)?,
        upload_bytes: at_least_one("upload_bytes", limits.upload_bytes)?,
    })
}

fn share(callers: &CallersSection) -> anyhow::Result<Share> {
    let zero = [
        ("max_sessions", callers.max_sessions == Some(0)),
        ("max_executions", callers.max_executions == Some(0)),
        ("requests_per_minute", callers.requests_per_minute == Some(0)),
        ("bytes_per_hour", callers.bytes_per_hour == Some(0)),
    ];
    if let Some((name, _)) = zero.iter().find(|(_, zero)| *zero) {
        return Err(usage(format!("`server.callers.{name}` is 0"), "leave it out for no bound"));
    }
    Ok(Share {
        max_sessions: callers.max_sessions,
        max_executions: callers.max_executions,
        requests_per_minute: callers.requests_per_minute,
        bytes_per_hour: callers.bytes_per_hour,
    })
}

fn jwt_settings(jwt: &JwtSection) -> anyhow::Result<Option<JwtSettings>> {
    let named = jwt.issuer.is_some() || jwt.audiences.is_some() || jwt.jwks_file.is_some() || jwt.jwks_url.is_some();
    let (Some(issuer), Some(audiences)) = (jwt.issuer.clone(), jwt.audiences.as_ref().map(Names::list).filter(|list| !list.is_empty())) else {
        let missing = "`auth.jwt` needs `issuer`, `audiences`, and one of `jwks_file` and `jwks_url`";
        return if named { Err(usage(missing, "give all three, or none")) } else { Ok(None) };
    };
    let keys = match (&jwt.jwks_file, &jwt.jwks_url) {
        (Some(file), None) => JwksSource::File(file.clone()),
        (None, Some(url)) if url.starts_with("https://") => JwksSource::Url(url.clone(), jwt.jwks_certificates.clone()),
        (None, Some(_)) => return Err(usage("`jwks_url` does not begin with https://", "give an https address, or a file as `jwks_file`")),
        _ => return Err(usage("`auth.jwt` needs one of `jwks_file` and `jwks_url`", "say where the issuer's keys are")),
    };
    let roles: Vec<(String, String)> = jwt.roles.clone().unwrap_or_default().into_iter().collect();
    if let Some((value, role)) = roles.iter().find(|(_, role)| !matches!(role.as_str(), "execute" | "observe" | "admin")) {
        return Err(usage(format!("`auth.jwt.roles` gives `{value}` the unknown role `{role}`"), "roles are execute, observe and admin"));
    }
    Ok(Some(JwtSettings { issuer, audiences, keys, role_claim: jwt.role_claim.clone().unwrap_or_default(), roles, pools_claim: jwt.pools_claim.clone() }))
}

/// The pools that the file declares; without any, the documented one.
fn pools(layers: &Layers<'_>, inherited: &Inherited<'_>, lines: &mut Vec<Line>) -> anyhow::Result<Vec<Pool>> {
    let documented = layers.first().and_then(|(tables, _)| tables.pools.get("default")).cloned().unwrap_or_default();
    let declared = layers.iter().skip(1).flat_map(|(tables, origin)| tables.pools.iter().map(|(name, pool)| (name, pool, *origin)));
    let nothing = PoolSection::default();
    let mut declared: Vec<_> = declared.collect();
    let none = "default".to_owned();
    if declared.is_empty() {
        declared.push((&none, &nothing, Origin::Default));
    }
    declared
        .into_iter()
        .map(|(name, pool, origin)| {
            let sections = [(&documented, Origin::Default), (pool, origin)];
            lines.extend(PoolSection::lines(&sections, &format!("pools.{name}")));
            let mut limits = inherited.limits;
            if let Some(given) = &pool.limits {
                let mut origins = Vec::new();
                given.apply(&mut limits, origin, &mut origins);
                let values = super::limit_lines(&limits);
                let given = values.into_iter().filter(|(limit, _)| origins.iter().any(|(given, _)| given == limit));
                lines.extend(given.map(|(limit, value)| (format!("pools.{name}.limits.{limit}"), value, origin)));
            }
            super::check_limits(&limits)?;
            pool_settings(name, &PoolSection::merge(&sections), limits, inherited)
        })
        .collect()
}

fn pool_settings(name: &str, pool: &PoolSection, limits: Limits, inherited: &Inherited<'_>) -> anyhow::Result<Pool> {
    let good = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && !name.starts_with('.');
    if !good {
        return Err(usage(format!("`{name}` is no name for a pool"), "use letters, digits, `-`, `_` and `.`, 64 at most"));
    }
    match pool.backend.as_deref() {
        Some("namespace") => {}
        Some("kvm") => return Err(usage(format!("the pool `{name}` asks for `kvm`, which this version does not have"), "use `namespace`, if that is enough")),
        other => return Err(usage(format!("the pool `{name}` has the unknown backend `{}`", other.unwrap_or_default()), "use `namespace`")),
    }
    if pool.network.as_deref() != Some("none") {
        let message = format!("the pool `{name}` asks for the network `{}`, which this version does not have", pool.network.as_deref().unwrap_or_default());
        return Err(usage(message, "use `none`: sandboxes reach no network"));
    }
    let within = |key: &str| format!("pools.{name}.{key}");
    let sandboxes = PoolSettings {
        ready: pool.ready.unwrap_or_default(),
        imports: Imports::Profile(pool.profile.clone().unwrap_or_default()),
        limits,
        shell: pool.shell != Some(Spawning::Deny),
        process_spawning: pool.process_spawning.map_or(inherited.process_spawning, |spawning| spawning == Spawning::Allow),
        template_bytes: at_least_one(&within("template_bytes"), pool.template_bytes)?,
        reserve_bytes: pool.reserve_bytes.unwrap_or_default(),
        ..PoolSettings::default()
    };
    let settings = SessionPoolSettings {
        name: name.to_owned(),
        environment: pool.environment.clone().unwrap_or_else(|| inherited.environment.to_owned()),
        sandboxes,
        max_sessions: at_least_one(&within("max_sessions"), pool.max_sessions)?,
        idle_timeout: seconds(&within("idle_timeout_seconds"), pool.idle_timeout_seconds)?,
        max_lifetime: seconds(&within("max_lifetime_seconds"), pool.max_lifetime_seconds)?,
        allocation_wait: Duration::from_secs(pool.allocation_wait_seconds.unwrap_or_default().min(300)),
        create_on_use: pool.create_on_use.unwrap_or(true),
        region: pool.region.clone(),
    };
    Ok(Pool { enabled: pool.enabled, settings })
}

/// The one that is named, else `default`, else the only one.
fn default_pool(named: Option<&str>, pools: &[Pool]) -> anyhow::Result<String> {
    let on: Vec<&str> = pools.iter().filter(|pool| pool.enabled != Some(false)).map(|pool| pool.settings.name.as_str()).collect();
    let found = match (named, on.as_slice()) {
        (Some(named), _) => on.iter().find(|name| **name == named),
        (None, [only]) => Some(only),
        (None, _) => on.iter().find(|name| **name == "default"),
    };
    found.map(|name| (*name).to_owned()).ok_or_else(|| match named {
        Some(named) => usage(format!("`default_pool` names `{named}`, which is no pool that is on"), "declare it, or name another"),
        None if on.is_empty() => usage("no pool is on", "declare one with `enabled = true`"),
        None => usage("none of the pools is the default one", "name it with `default_pool` in `[server]`"),
    })
}
