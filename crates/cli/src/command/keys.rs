//! `belljar keys`: API keys, by way of the server that runs on the data folder, or straight in its store.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use store::{KeyInfo, KeyLimits, NewKey, Options, Role, Store, format_time};

use crate::args::{CreateKey, KeyRole, Keys};
use crate::client::Server;
use crate::config::Configuration;
use crate::exit;
use crate::terminal;

/// Who is on record for what is done straight in the store; the server calls its own user so too.
const LOCAL: &str = "local";

/// Does what was asked.
pub(crate) fn run(command: Keys, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let data = configuration.data.value.as_path();
    match command {
        Keys::Create(new) => create(new, data)?,
        Keys::List { json } => list(&Place::existing(data)?.keys()?, json)?,
        Keys::Revoke { id } => {
            Place::existing(data)?.revoke(&id)?;
            terminal::note(&format!("key {id} is refused from now on"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where keys are kept.
enum Place {
    Server(Server),
    Store(Arc<Store>),
}

impl Place {
    fn open(data: &Path) -> anyhow::Result<Self> {
        match Server::find(data)? {
            Some(server) => Ok(Self::Server(server)),
            None => Ok(Self::Store(Store::open(data, Options::default()).map_err(exit::store)?)),
        }
    }

    /// As [`Self::open`], but makes nothing where nothing is.
    fn existing(data: &Path) -> anyhow::Result<Self> {
        match Server::find(data)? {
            Some(server) => Ok(Self::Server(server)),
            None => {
                drop(Store::open_reader(data).map_err(exit::store)?);
                Self::open(data)
            }
        }
    }

    fn create(&self, new: NewKey) -> anyhow::Result<Created> {
        match self {
            Self::Server(server) => {
                let body = json!({
                    "name": new.name,
                    "principal": new.principal,
                    "roles": new.roles,
                    "pools": new.pools,
                    "expiresInSeconds": new.expires_in.map(|life| life.as_secs()),
                    "limits": new.limits,
                });
                server.call(Method::POST, "/v1/admin/keys", Some(&body))
            }
            Self::Store(store) => {
                let created = store.create_key(new, LOCAL).map_err(exit::store)?;
                Ok(Created { key: created.key, info: created.info })
            }
        }
    }

    fn keys(&self) -> anyhow::Result<Vec<KeyInfo>> {
        #[derive(Deserialize)]
        struct All {
            keys: Vec<KeyInfo>,
        }
        match self {
            Self::Server(server) => Ok(server.call::<All>(Method::GET, "/v1/admin/keys", None)?.keys),
            Self::Store(store) => Ok(store.keys()),
        }
    }

    fn revoke(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Server(server) => {
                let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
                server.call::<Json>(Method::DELETE, &format!("/v1/admin/keys/{id}"), None).map(drop)
            }
            Self::Store(store) => store.revoke_key(id, LOCAL).map(drop).map_err(exit::store),
        }
    }
}

/// A key that was just made.
#[derive(Deserialize, serde::Serialize)]
struct Created {
    key: String,
    #[serde(flatten)]
    info: KeyInfo,
}

fn create(new: CreateKey, data: &Path) -> anyhow::Result<()> {
    let json = new.json;
    let created = Place::open(data)?.create(wanted(new))?;
    if json {
        return Ok(terminal::json(&created)?);
    }
    terminal::line(&created.key)?;
    let info = &created.info;
    terminal::note(&format!("key {} `{}`: {}; it is shown this once, and kept nowhere", info.id, info.name, scope(info)));
    Ok(())
}

fn wanted(new: CreateKey) -> NewKey {
    let roles = if new.role.is_empty() { vec![Role::Execute] } else { new.role.into_iter().map(Role::from).collect() };
    NewKey {
        name: new.name,
        principal: new.principal,
        roles,
        pools: (!new.pool.is_empty()).then_some(new.pool),
        expires_in: new.expires_in.map(Duration::from),
        limits: KeyLimits {
            max_sessions: new.max_sessions,
            max_executions: new.max_executions,
            requests_per_minute: new.requests_per_minute,
            bytes_per_hour: new.bytes_per_hour,
        },
    }
}

fn list(keys: &[KeyInfo], json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(terminal::json(keys)?);
    }
    let now = SystemTime::now();
    for key in keys {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(time), _) => format!("revoked {}", format_time(time)),
            (None, Some(time)) if time <= now => format!("expired {}", format_time(time)),
            (None, Some(time)) => format!("expires {}", format_time(time)),
            (None, None) => "valid".to_owned(),
        };
        let principal = if key.principal == key.id { String::new() } else { format!("  for {}", key.principal) };
        terminal::line(&format!("{}  {}  {}  {state}{principal}", key.id, key.name, scope(key)))?;
    }
    Ok(())
}

/// What a key is good for, and where.
fn scope(key: &KeyInfo) -> String {
    let roles: Vec<&str> = key.roles.iter().map(|role| role.name()).collect();
    let pools = key.pools.as_ref().map_or_else(|| "all pools".to_owned(), |pools| format!("pools {}", pools.join(",")));
    format!("{} in {pools}", roles.join(","))
}

impl From<KeyRole> for Role {
    fn from(role: KeyRole) -> Self {
        match role {
            KeyRole::Execute => Self::Execute,
            KeyRole::Observe => Self::Observe,
            KeyRole::Admin => Self::Admin,
        }
    }
}
