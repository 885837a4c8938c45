//! API keys: a random secret that is shown once and kept as its digest, with what its holder may do.
//!
//! A key reads `bj_<id>_<secret>`: the id of 12 characters names it everywhere, the secret is 32 random bytes in base64url.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::StoreError;
use crate::event::{Event, EventKind};
use crate::time;

/// What every key begins with.
const PREFIX: &str = "bj_";
/// Characters of an id: no vowels that make words, nothing that looks like another.
const ALPHABET: &[u8; 32] = b"0123456789bcdfghjkmnpqrstvwxyzae";
const ID_CHARACTERS: usize = 12;
const SECRET_BYTES: usize = 32;
/// Keys at most, ended ones included.
const MAX_KEYS: usize = 100_000;
/// A key lives so long at most.
const MAX_LIFE: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What a key lets its holder do. A set, not a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sessions, executions and files.
    Execute,
    /// Metrics and the record.
    Observe,
    /// Keys.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Observe => "observe",
            Self::Admin => "admin",
        }
    }
}

/// How much a key's holder may have; none means no bound of the key's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeyLimits {
    /// Sessions at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// Executions running or queued at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_executions: Option<u32>,
    /// Requests in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Bytes up and down in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_hour: Option<u64>,
}

/// A key to be made.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// What its holder calls it.
    pub name: String,
    /// Whom it stands for; `None`: for itself, under its id. Keys of one principal share their sessions.
    pub principal: Option<String>,
    /// What it is good for; at least one.
    pub roles: Vec<Role>,
    /// In these pools; `None`: in all.
    pub pools: Option<Vec<String>>,
    /// For how long; `None`: until it is revoked.
    pub expires_in: Option<Duration>,
    /// How much.
    pub limits: KeyLimits,
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of `NewKey`")]
pub struct KeyInfo {
    /// Names it.
    pub id: String,
    pub name: String,
    /// Whom it stands for.
    pub principal: String,
    pub roles: Vec<Role>,
    pub pools: Option<Vec<String>>,
    #[serde(with = "time::required")]
    pub created_at: SystemTime,
    #[serde(with = "time::optional")]
    pub expires_at: Option<SystemTime>,
    #[serde(with = "time::optional")]
    pub revoked_at: Option<SystemTime>,
    pub limits: KeyLimits,
}

impl KeyInfo {
    /// Whether it may be used at this time.
    #[must_use]
    pub fn holds(&self, now: SystemTime) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    pub(crate) fn event(&self, kind: EventKind) -> Event {
        let event = Event::new(kind).with("key", self.id.clone()).with("name", self.name.clone()).with("for", self.principal.clone());
        if kind == EventKind::KeyRevoked {
            return event;
        }
        let event = event.with("roles", json!(self.roles)).with("pools", json!(self.pools)).with("limits", json!(self.limits));
        event.with("expires_at", self.expires_at.map(time::format))
    }
}

/// A key that was just made.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    /// What is kept of it.
    pub info: KeyInfo,
    /// What its holder presents: shown once, and kept nowhere.
    pub key: String,
}

/// A key as it will stand in its row.
#[derive(Debug, Clone)]
pub(crate) struct KeyRow {
    info: KeyInfo,
    digest: [u8; 32],
}

impl KeyRow {
    pub(crate) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        const INSERT: &str = "INSERT INTO keys (id, name, principal, sha256, roles, pools, created_at, expires_at, revoked_at, limits)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, ?9)";
        let info = &self.info;
        let pools = info.pools.as_ref().map(|pools| json!(pools).to_string());
        connection.prepare_cached(INSERT)?.execute(params![
            info.id,
            info.name,
            info.principal,
            self.digest,
            json!(info.roles).to_string(),
            pools,
            time::format(info.created_at),
            info.expires_at.map(time::format),
            json!(info.limits).to_string(),
        ])?;
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Entry {
    info: Arc<KeyInfo>,
    digest: [u8; 32],
}

/// All keys in memory: no request asks the database.
#[derive(Debug)]
pub(crate) struct Table {
    keys: RwLock<HashMap<String, Entry>>,
    /// Compared with where there is no key of an id, so that this takes as long.
    nobody: [u8; 32],
}

impl Table {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT id, name, principal, sha256, roles, pools, created_at, expires_at, revoked_at, limits FROM keys")?;
        let entries = statement.query_map([], |row| {
            let info = KeyInfo {
                id: row.get(0)?,
                name: row.get(1)?,
                principal: row.get(2)?,
                roles: from_json(row, 4)?,
                pools: if row.get_ref(5)? == rusqlite::types::ValueRef::Null { None } else { Some(from_json(row, 5)?) },
                created_at: from_time(row, 6)?.unwrap_or(SystemTime::UNIX_EPOCH),
                expires_at: from_time(row, 7)?,
                revoked_at: from_time(row, 8)?,
                limits: from_json(row, 9)?,
            };
            Ok((info.id.clone(), Entry { info: Arc::new(info), digest: row.get(3)? }))
        })?;
        let mut nobody = [0; 32];
        // Where there is no randomness no key can be made either; a digest of nothing serves as well.
        let _ = getrandom::fill(&mut nobody);
        Ok(Self { keys: RwLock::new(entries.collect::<rusqlite::Result<_>>()?), nobody })
    }

    /// Checks what was asked for and draws id and secret. The key holds once it is [added](Self::add).
    pub(crate) fn draw(&self, new: NewKey, now: SystemTime) -> Result<(CreatedKey, KeyRow), StoreError> {
        check(&new)?;
        if self.keys.read().unwrap_or_else(PoisonError::into_inner).len() >= MAX_KEYS {
            return Err(StoreError::InvalidKey(format!("there are {MAX_KEYS} keys already")));
        }
        let mut random = [0; SECRET_BYTES + ID_CHARACTERS];
        getrandom::fill(&mut random).map_err(|_| StoreError::InvalidKey("there is no randomness to draw a key from".to_owned()))?;
        let (secret, id) = random.split_at(SECRET_BYTES);
        let id: String = id.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31))).copied().map(char::from).collect();
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let mut roles = new.roles;
        roles.sort_unstable();
        roles.dedup();
        // So that keys are in the same order after a restart.
        let now = time::stored(now);
        let info = KeyInfo {
            name: new.name,
            principal: new.principal.unwrap_or_else(|| id.clone()),
            roles,
            pools: new.pools,
            created_at: now,
            expires_at: new.expires_in.and_then(|life| now.checked_add(life)),
            revoked_at: None,
            limits: new.limits,
            id: id.clone(),
        };
        let row = KeyRow { info: info.clone(), digest: digest(&secret) };
        Ok((CreatedKey { info, key: format!("{PREFIX}{id}_{secret}") }, row))
    }

    /// From now on this key holds.
    pub(crate) fn add(&self, info: Arc<KeyInfo>, row: &KeyRow) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(info.id.clone(), Entry { info, digest: row.digest });
    }

    /// From now on this key holds no more.
    pub(crate) fn revoke(&self, id: &str, now: SystemTime) -> Result<Arc<KeyInfo>, StoreError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let entry = keys.get_mut(id).ok_or_else(|| StoreError::NoSuchKey(id.to_owned()))?;
        if entry.info.revoked_at.is_none() {
            entry.info = Arc::new(KeyInfo { revoked_at: Some(now), ..KeyInfo::clone(&entry.info) });
        }
        Ok(Arc::clone(&entry.info))
    }

    pub(crate) fn all(&self) -> Vec<KeyInfo> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = keys.values().map(|entry| KeyInfo::clone(&entry.info)).collect();
        all.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        all
    }

    /// The key that this is, if it holds. Takes the same steps whether or not there is a key of its id.
    pub(crate) fn verify(&self, presented: &str, now: SystemTime) -> Option<Arc<KeyInfo>> {
        let (id, secret) = presented.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).unwrap_or_default();
        let found = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let expected = found.as_ref().map_or(&self.nobody, |entry| &entry.digest);
        let same = bool::from(digest(secret).ct_eq(expected));
        found.filter(|entry| same && entry.info.holds(now)).map(|entry| entry.info)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether a key can be made like this.
fn check(new: &NewKey) -> Result<(), StoreError> {
    let refused = |message: String| Err(StoreError::InvalidKey(message));
    if new.name.is_empty() || new.name.chars().count() > 100 || new.name.chars().any(char::is_control) {
        return refused("a key's name has 1 to 100 characters, none of them a control character".to_owned());
    }
    if new.roles.is_empty() {
        return refused("a key needs at least one role: `execute`, `observe` or `admin`".to_owned());
    }
    if let Some(principal) = new.principal.as_deref().filter(|principal| !is_plain(principal)) {
        return refused(format!("the principal `{principal}` is not 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ -"));
    }
    if let Some(pool) = new.pools.iter().flatten().find(|pool| !is_plain(pool)) {
        return refused(format!("`{pool}` is not the name of a pool"));
    }
    if new.pools.is_some() && new.roles.contains(&Role::Admin) {
        return refused("a key with the role `admin` is for all pools: it can make keys for any of them".to_owned());
    }
    if new.pools.as_ref().is_some_and(|pools| pools.is_empty() || pools.len() > 100) {
        return refused("a key is for 1 to 100 pools, or for all".to_owned());
    }
    if new.expires_in.is_some_and(|life| life.is_zero() || life > MAX_LIFE) {
        return refused("a key expires after a time between 1 second and 100 years".to_owned());
    }
    let limits = new.limits;
    let zero = [limits.max_sessions, limits.max_executions, limits.requests_per_minute].contains(&Some(0)) || limits.bytes_per_hour == Some(0);
    if zero { refused("a limit of a key is at least 1".to_owned()) } else { Ok(()) }
}

fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error)))
}

fn from_time(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Option<SystemTime>> {
    let text: Option<String> = row.get(index)?;
    // A time that cannot be read ends the key: at the epoch.
    Ok(text.map(|text| time::parse(&text).unwrap_or(SystemTime::UNIX_EPOCH)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Options, Store};

    fn key(name: &str) -> NewKey {
        NewKey { name: name.to_owned(), roles: vec![Role::Execute], ..NewKey::default() }
    }

    fn at(text: &str) -> SystemTime {
        time::parse(text).unwrap()
    }

    fn table() -> Table {
        Table { keys: RwLock::default(), nobody: [7; 32] }
    }

    fn drawn(table: &Table, new: NewKey, now: SystemTime) -> CreatedKey {
        let (created, row) = table.draw(new, now).unwrap();
        table.add(Arc::new(created.info.clone()), &row);
        created
    }

    #[test]
    fn only_the_very_key_is_one() {
        let table = table();
        let now = at("2026-01-01T00:00:00Z");
        let (one, two) = (drawn(&table, key("one"), now), drawn(&table, key("two"), now));
        assert_eq!(table.verify(&one.key, now).unwrap().name, "one");
        assert_eq!(one.key.len(), "bj_".len() + ID_CHARACTERS + 1 + 43);
        assert_eq!(one.info.principal, one.info.id);
        let (id, rest) = one.key.strip_prefix(PREFIX).unwrap().split_once('_').unwrap();
        let (other, _) = two.key.strip_prefix(PREFIX).unwrap().split_once('_').unwrap();
        let last = rest.chars().last().unwrap();
        let swapped = format!("{}{}", &rest[..42], if last == 'A' { 'B' } else { 'A' });
        for wrong in [
            String::new(),
            "bj_".to_owned(),
            "bj__".to_owned(),
            rest.to_owned(),
            format!("bj_{id}"),
            format!("bj_{id}_"),
            format!("bj_{id}_{}", &rest[..42]),
            format!("bj_{id}_{swapped}"),
            format!("bj_{other}_{rest}"),
            format!("bj_nobody_{rest}"),
            format!("BJ_{id}_{rest}"),
            format!("{} ", one.key),
            format!("{}\0", one.key),
            "bj_x_".to_owned() + &"é".repeat(1000),
        ] {
            assert!(table.verify(&wrong, now).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_ends_when_it_expires_or_is_revoked() {
        let table = table();
        let start = at("2026-01-01T00:00:00Z");
        let brief = drawn(&table, NewKey { expires_in: Some(Duration::from_secs(60)), ..key("brief") }, start);
        assert!(table.verify(&brief.key, at("2026-01-01T00:00:59.999Z")).is_some());
        assert!(table.verify(&brief.key, at("2026-01-01T00:01:00Z")).is_none());
        let lasting = drawn(&table, key("lasting"), start);
        assert!(table.verify(&lasting.key, at("2125-01-01T00:00:00Z")).is_some());
        let first = table.revoke(&lasting.info.id, start).unwrap();
        assert!(table.verify(&lasting.key, start).is_none());
        assert_eq!(table.revoke(&lasting.info.id, at("2026-02-01T00:00:00Z")).unwrap(), first, "it ends once");
        assert!(matches!(table.revoke("nobody", start).unwrap_err(), StoreError::NoSuchKey(_)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let table = table();
        let some = |text: &str| Some(text.to_owned());
        for (wrong, part) in [
            (key(""), "1 to 100 characters"),
            (key("a\nb"), "control character"),
            (NewKey { roles: Vec::new(), ..key("x") }, "at least one role"),
            (NewKey { principal: some("a b"), ..key("x") }, "principal `a b`"),
            (NewKey { pools: Some(vec!["a/b".to_owned()]), ..key("x") }, "`a/b` is not"),
            (NewKey { pools: Some(Vec::new()), ..key("x") }, "1 to 100 pools"),
            (NewKey { pools: Some(vec!["a".to_owned()]), roles: vec![Role::Execute, Role::Admin], ..key("x") }, "for all pools"),
            (NewKey { expires_in: Some(Duration::ZERO), ..key("x") }, "expires after"),
            (NewKey { expires_in: Some(Duration::MAX), ..key("x") }, "expires after"),
            (NewKey { limits: KeyLimits { max_sessions: Some(0), ..KeyLimits::default() }, ..key("x") }, "at least 1"),
        ] {
            let error = table.draw(wrong, SystemTime::now()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn keys_outlive_the_process_and_their_secret_is_nowhere() {
        let home = tempfile::tempdir().unwrap();
        let new = NewKey {
            principal: Some("team@x".to_owned()),
            roles: vec![Role::Observe, Role::Execute, Role::Observe],
            pools: Some(vec!["default".to_owned()]),
            expires_in: Some(Duration::from_secs(3600)),
            limits: KeyLimits { max_sessions: Some(3), bytes_per_hour: Some(u64::MAX), ..KeyLimits::default() },
            ..key("<\"ключ\">")
        };
        let store = Store::open(home.path(), Options::default()).unwrap();
        let (created, gone) = (store.create_key(new, "local").unwrap(), store.create_key(key("gone"), "local").unwrap());
        assert_eq!(created.info.roles, [Role::Execute, Role::Observe]);
        store.revoke_key(&gone.info.id, "admin-1").unwrap();
        store.revoke_key(&gone.info.id, "admin-2").unwrap();
        assert!(store.verify(&gone.key).is_none());
        let before = store.keys();
        drop(store);
        let store = Store::open(home.path(), Options::default()).unwrap();
        // Times are kept in milliseconds.
        let text = |keys: &[KeyInfo]| serde_json::to_string(keys).unwrap();
        assert_eq!(text(&store.keys()), text(&before));
        assert_eq!(store.verify(&created.key).unwrap().principal, "team@x");
        assert!(store.verify(&gone.key).is_none());
        let events = store.query(&Default::default()).unwrap();
        let seen: Vec<_> =
            events.iter().map(|event| (event.kind.as_str(), event.principal.as_deref().unwrap(), event.detail["key"].as_str().unwrap())).collect();
        let (one, two) = (created.info.id.as_str(), gone.info.id.as_str());
        assert_eq!(seen, [("key_created", "local", one), ("key_created", "local", two), ("key_revoked", "admin-1", two)], "and once each");
        drop(store);
        let secret = created.key.split_at(PREFIX.len() + ID_CHARACTERS + 1).1.as_bytes();
        for file in std::fs::read_dir(home.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        let back: KeyInfo = serde_json::from_str(&serde_json::to_string(&created.info).unwrap()).unwrap();
        assert_eq!((back.limits, back.pools), (created.info.limits, created.info.pools));
    }
}
