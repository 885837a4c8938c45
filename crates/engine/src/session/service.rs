//! All sessions: finds them by their key, makes them in their pool, ends them in time.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sandbox::Limits;
use tokio::sync::{Semaphore, watch};

use super::lease::{Common, Key, Made};
use super::share::{Kind, Share, Shares};
use super::{Caller, Create, LimitsRequest, Opened, PoolNow, Session, SessionInfo, SessionPoolSettings, no_session};
use crate::dispatch::Engine;
use crate::environment::{Environment, Lease, Progress};
use crate::error::{Error, ErrorKind};
use crate::pool::Pool;
use crate::record::Recorder;

/// How often it is looked at which sessions have to end.
const LOOK: Duration = Duration::from_millis(200);
/// How long the end of all sandboxes may take when the service ends.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// All pools and their sessions.
pub struct Sessions {
    pools: BTreeMap<String, Arc<SessionPool>>,
    slots: Mutex<HashMap<Key, Slot>>,
    common: Arc<Common>,
    closing: AtomicBool,
}

struct SessionPool {
    settings: SessionPoolSettings,
    pool: Pool,
    environment: Environment,
    _lease: Lease,
    places: Arc<Semaphore>,
}

/// What a key leads to.
enum Slot {
    /// Somebody makes it; the channel closes when that is over.
    Making(watch::Receiver<()>),
    Ready(Arc<Session>),
}

/// Where a key led.
enum Found {
    Ready(Arc<Session>),
    Making(watch::Receiver<()>),
    Free(Share, watch::Sender<()>),
}

impl Sessions {
    /// Builds the environments of the pools where they are not there yet, and starts to fill the pools. Blocking. To be called within a tokio
    /// runtime, which then ends sessions in time.
    ///
    /// # Errors
    /// An environment that cannot be had, a backend that cannot be started, two pools of one name.
    pub fn start(
        engine: &Engine,
        pools: Vec<SessionPoolSettings>,
        recorder: Arc<dyn Recorder>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Arc<Self>, Error> {
        let spool = spool(engine)?;
        let mut started = BTreeMap::new();
        for settings in pools {
            if started.contains_key(&settings.name) {
                return Err(Error::new(ErrorKind::InvalidRequest, format!("there are two pools of the name `{}`", settings.name)).hint("rename one"));
            }
            let mut sandboxes = settings.sandboxes.clone();
            // Over all its executions: a session lives at most so long.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
            let cpus = sandboxes.limits.cpus.clamp(1.0, 4096.0).ceil() as u64;
            sandboxes.cpu_total_seconds = Some(settings.max_lifetime.as_secs().saturating_mul(cpus).max(sandboxes.limits.cpu_seconds));
            let (pool, lease, environment) = engine.pool_of(&settings.environment, sandboxes, progress)?;
            let places = Arc::new(Semaphore::new(settings.max_sessions.min(Semaphore::MAX_PERMITS)));
            started.insert(settings.name.clone(), Arc::new(SessionPool { settings, pool, environment, _lease: lease, places }));
        }
        let common = Common { recorder, shares: Arc::new(Shares::default()), kept: Arc::default(), spool };
        let sessions = Arc::new(Self { pools: started, slots: Mutex::default(), common: Arc::new(common), closing: AtomicBool::new(false) });
        tokio::spawn(end_in_time(Arc::downgrade(&sessions)));
        Ok(sessions)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, pool: &str) -> Result<&Arc<SessionPool>, Error> {
        self.pools.get(pool).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no pool `{pool}`")))
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolNow> {
        let ready = self.ready();
        self.pools.values().map(|pool| pool.now(&ready)).collect()
    }

    /// One pool.
    ///
    /// # Errors
    /// `not_found`.
    pub fn pool(&self, name: &str) -> Result<PoolNow, Error> {
        Ok(self.known(name)?.now(&self.ready()))
    }

    /// Whether it has begun to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn ready(&self) -> Vec<Arc<Session>> {
        let slots = self.lock();
        slots.values().filter_map(|slot| if let Slot::Ready(session) = slot { Some(Arc::clone(session)) } else { None }).collect()
    }

    /// Finds a session of this caller, or makes it. `id` `None`: a new one with an id of ours. Counts as a call to it.
    ///
    /// # Errors
    /// `not_found`: no such pool, or no such session where none may be made; `conflict`; `limit` where all places stay taken for the
    /// pool's time to wait or the caller has its share; `unavailable`.
    #[expect(clippy::too_many_arguments, reason = "who, where, which, how and with what")]
    pub async fn open(self: &Arc<Self>, caller: &Caller, pool: &str, id: Option<&str>, create: Create, limits: &LimitsRequest) -> Result<Opened, Error> {
        let pool = self.known(pool)?;
        let limits = limits.over(&pool.settings.sandboxes.limits)?;
        let id = id.map_or_else(super::new_session_id, |id| Ok(id.to_owned()))?;
        let key = Key { principal: Arc::clone(&caller.principal), pool: pool.settings.name.clone(), id };
        loop {
            match self.look(caller, &key, (pool, create))? {
                Found::Ready(session) => {
                    session.touch();
                    return Ok(Opened { session, created: false, allocation: Duration::ZERO });
                }
                // Closed without a word when it is over, whatever came of it.
                Found::Making(mut making) => drop(making.changed().await),
                Found::Free(share, made) => {
                    let wanted = Wanted { key, pool: Arc::clone(pool), limits, share };
                    // A task of its own: a caller that goes away meanwhile leaves a session behind, and nothing half made.
                    let task = tokio::spawn(Arc::clone(self).make(wanted, made));
                    return task.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the making of a session was lost")));
                }
            }
        }
    }

    /// Looks where a key leads; where it leads nowhere, the caller is the one to make a session.
    fn look(&self, caller: &Caller, key: &Key, (pool, create): (&SessionPool, Create)) -> Result<Found, Error> {
        let mut slots = self.lock();
        let there = match slots.get(key) {
            Some(Slot::Ready(session)) if !session.is_over() => Some(Found::Ready(Arc::clone(session))),
            Some(Slot::Making(making)) => Some(Found::Making(making.clone())),
            _ => None,
        };
        if let Some(there) = there {
            if create == Create::New {
                return Err(Error::new(ErrorKind::Conflict, format!("there is a session `{}` already", key.id)).hint("choose another id, or use it"));
            }
            return Ok(there);
        }
        if create == Create::IfMissing && !pool.settings.create_on_use {
            return Err(no_session(&key.id));
        }
        if self.is_closing() {
            return Err(closing());
        }
        let share = self.common.shares.take(caller, Kind::Session)?;
        let (made, making) = watch::channel(());
        slots.insert(key.clone(), Slot::Making(making));
        Ok(Found::Free(share, made))
    }

    /// A session of this caller; in any pool, where `pool` is `None`. Counts as a call to it.
    ///
    /// # Errors
    /// `not_found`; `conflict` where several pools have one of this id.
    pub fn find(&self, caller: &Caller, pool: Option<&str>, id: &str) -> Result<Arc<Session>, Error> {
        let slots = self.lock();
        let of = |pool: &String| slots.get(&Key { principal: Arc::clone(&caller.principal), pool: pool.clone(), id: id.to_owned() });
        let wanted = self.pools.keys().filter(|name| pool.is_none_or(|pool| pool == name.as_str()));
        let mut found = wanted.filter_map(of).filter_map(|slot| match slot {
            Slot::Ready(session) if !session.is_over() => Some(session),
            _ => None,
        });
        let session = found.next().ok_or_else(|| no_session(id))?;
        if found.next().is_some() {
            return Err(Error::new(ErrorKind::Conflict, format!("several pools have a session `{id}`")).hint("name the pool as well"));
        }
        session.touch();
        Ok(Arc::clone(session))
    }

    /// The sessions of this caller, by the time they were made. No call to them.
    #[must_use]
    pub fn list(&self, caller: &Caller, pool: Option<&str>) -> Vec<SessionInfo> {
        let mine = |session: &Arc<Session>| session.key.principal == caller.principal && pool.is_none_or(|pool| pool == session.key.pool) && !session.is_over();
        let mut infos: Vec<SessionInfo> = self.ready().iter().filter(|session| mine(session)).map(|session| session.info()).collect();
        infos.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        infos
    }

    /// Ends a session: what runs is killed, everything is destroyed. Returns when its place is free.
    pub async fn close(&self, session: &Arc<Session>) {
        self.end(session, "its caller ended it").await;
        let _ = tokio::time::timeout(END_PATIENCE, session.destroyed()).await;
    }

    async fn end(&self, session: &Arc<Session>, reason: &'static str) {
        if session.end(reason) {
            let noted = Arc::clone(session);
            let _ = tokio::task::spawn_blocking(move || noted.note("session_ended", reason)).await;
        }
        let mut slots = self.lock();
        if matches!(slots.get(&session.key), Some(Slot::Ready(there)) if Arc::ptr_eq(there, session)) {
            slots.remove(&session.key);
        }
    }

    /// Makes a session and puts it where its key leads. `_made` closes at the end, whatever comes of it.
    async fn make(self: Arc<Self>, wanted: Wanted, _made: watch::Sender<()>) -> Result<Opened, Error> {
        let clock = Instant::now();
        let making = Making { sessions: &self, key: wanted.key.clone() };
        let session = self.make_in_place(wanted).await?;
        // Before it is looked whether the service ends: who ends it sees either this session or none.
        self.lock().insert(making.key.clone(), Slot::Ready(Arc::clone(&session)));
        if self.is_closing() {
            self.end(&session, "the server ends").await;
            return Err(closing());
        }
        Ok(Opened { session, created: true, allocation: clock.elapsed() })
    }

    async fn make_in_place(&self, wanted: Wanted) -> Result<Arc<Session>, Error> {
        let Wanted { key, pool, limits, share } = wanted;
        let wanted_since = Instant::now();
        let settings = &pool.settings;
        let free = Arc::clone(&pool.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(settings.allocation_wait, free).await else {
            let message = format!("all {} sessions of the pool `{}` are taken", settings.max_sessions, settings.name);
            let hint = "end a session that is not needed any more, or try again later";
            return Err(Error { retry_after: Some(Duration::from_secs(5)), ..Error::new(ErrorKind::Limit, message).hint(hint) });
        };
        let (common, clock) = (Arc::clone(&self.common), wanted_since);
        let made = tokio::task::spawn_blocking(move || {
            let taken = pool.pool.take(&limits)?;
            let settings = &pool.settings;
            let made = Made {
                key,
                environment: settings.environment.clone(),
                limits,
                process_spawning: settings.sandboxes.process_spawning,
                idle_timeout: settings.idle_timeout,
                max_lifetime: settings.max_lifetime,
                taken,
                place,
                share,
            };
            let session = Session::new(made, common)?;
            session.note_time("session_created", "", clock.elapsed());
            Ok(session)
        });
        made.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the making of a session was lost")))
    }

    /// Ends all: nothing new starts, what runs gets this long to end, then everything is destroyed.
    pub async fn shutdown(&self, grace: Duration) {
        self.closing.store(true, Ordering::Release);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && self.ready().iter().any(|session| session.is_busy()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sessions = self.ready();
        for session in &sessions {
            self.end(session, "the server ends").await;
        }
        let all = async {
            for session in &sessions {
                session.destroyed().await;
            }
        };
        let _ = tokio::time::timeout(END_PATIENCE, all).await;
    }

    /// Ends what has to end now.
    async fn end_what_is_due(&self) {
        for session in self.ready() {
            if session.is_over() {
                self.end(&session, "").await;
            } else if let Some(reason) = session.expiry() {
                self.end(&session, reason).await;
            }
        }
    }
}

/// Clears the way where a session was not made, for whatever reason.
struct Making<'a> {
    sessions: &'a Sessions,
    key: Key,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut slots = self.sessions.lock();
        if let Some(Slot::Making(_)) = slots.get(&self.key) {
            slots.remove(&self.key);
        }
    }
}

/// A session to be made.
struct Wanted {
    key: Key,
    pool: Arc<SessionPool>,
    limits: Limits,
    share: Share,
}

impl SessionPool {
    fn now(&self, sessions: &[Arc<Session>]) -> PoolNow {
        let own = sessions.iter().filter(|session| session.key.pool == self.settings.name && !session.is_over());
        let (count, busy) = own.fold((0, 0), |(count, busy), session| (count + 1, busy + usize::from(session.is_busy())));
        PoolNow { settings: self.settings.clone(), sandboxes: self.pool.status(), sessions: count, busy, environment: self.environment.clone() }
    }
}

fn closing() -> Error {
    let error = Error::new(ErrorKind::Unavailable, "the server is about to end").hint("try again in a moment");
    Error { retry_after: Some(Duration::from_secs(5)), ..error }
}

/// The folder for long outputs: ours alone, and empty, since what lies there has no name.
fn spool(engine: &Engine) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = engine.data().join("spool");
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
        Ok(()) => Ok(folder),
        Err(error) => Err(Error::new(ErrorKind::Unavailable, format!("cannot create the folder `{}`: {error}", folder.display())).hint("check `--data`")),
    }
}

/// Looks for sessions whose time is over, as long as there is a service.
async fn end_in_time(sessions: Weak<Sessions>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(sessions) = sessions.upgrade() else { return };
        sessions.end_what_is_due().await;
    }
}
