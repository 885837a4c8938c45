//! The one way in: a command, then what it came to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sandbox::{BACKENDS, Backend, Controls, TemplateId};

use crate::environment::{Environment, EnvironmentError, Host, Lease, Options, Progress, Store};
use crate::error::{Error, ErrorKind};
use crate::execution::Execution;
use crate::pool::{Pool, PoolSettings};
use crate::run::{self, Control, Observer, RunRequest};
use crate::runtime;

/// What the engine is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder.
    pub data: PathBuf,
    /// What environments may know of this machine.
    pub host: Host,
    /// Isolation layers; all on but in controls of the containment suite.
    pub controls: Controls,
}

/// Something a caller asks for.
pub enum Command<'a> {
    /// One execution in a fresh sandbox.
    Run {
        /// What.
        request: Box<RunRequest>,
        /// Sees outputs as they come.
        observer: &'a mut dyn Observer,
        /// Interrupts it.
        control: &'a Control,
        /// Shows the build of an environment that is not there yet.
        progress: &'a mut dyn FnMut(Progress<'_>),
    },
    /// Build an environment.
    BuildEnvironment {
        /// Its name.
        name: String,
        /// From what.
        options: Options,
        /// Shows the build.
        progress: &'a mut dyn FnMut(Progress<'_>),
    },
    /// Remove an environment.
    RemoveEnvironment(String),
    /// All environments that are built.
    ListEnvironments,
}

/// What a command came to.
#[derive(Debug)]
pub enum Reply {
    /// An execution ended.
    Execution(Box<Execution>),
    /// Environments, as asked.
    Environments(Vec<Environment>),
}

/// The engine.
pub struct Engine {
    settings: Settings,
    store: Store,
    backend: OnceLock<Arc<dyn Backend>>,
    starting: Mutex<()>,
    /// Templates that the backend has, by the folder of their environment.
    templates: Mutex<HashMap<PathBuf, TemplateId>>,
}

impl Engine {
    /// An engine on this data folder. Nothing is started or written yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let store = Store::open(&settings.data, settings.host.clone());
        Self { settings, store, backend: OnceLock::new(), starting: Mutex::new(()), templates: Mutex::default() }
    }

    /// Does what a command asks.
    ///
    /// # Errors
    /// Where we could not do our part. Code that fails is no error: its execution says so.
    pub fn dispatch(&self, command: Command<'_>) -> Result<Reply, Error> {
        match command {
            Command::Run { request, observer, control, progress } => {
                let (template, _in_use, _) = self.template(&request.environment, progress)?;
                let execution = run::run(self.backend()?.as_ref(), template, &request, observer, control)?;
                Ok(Reply::Execution(Box::new(execution)))
            }
            Command::BuildEnvironment { name, options, progress } => Ok(Reply::Environments(vec![self.ensure(&name, &options, progress)?])),
            Command::RemoveEnvironment(name) => {
                self.store.remove(&name)?;
                Ok(Reply::Environments(Vec::new()))
            }
            Command::ListEnvironments => Ok(Reply::Environments(self.store.list())),
        }
    }

    /// A pool of sandboxes of an environment, which cannot be removed while the lease is held.
    ///
    /// # Errors
    /// Where the environment or the backend is not to be had, or the profile is unknown.
    pub fn pool(&self, environment: &str, settings: PoolSettings, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(Pool, Lease), Error> {
        self.pool_of(environment, settings, progress).map(|(pool, lease, _)| (pool, lease))
    }

    /// A pool, and its environment.
    pub(crate) fn pool_of(
        &self,
        environment: &str,
        settings: PoolSettings,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(Pool, Lease, Environment), Error> {
        let (template, lease, environment) = self.template(environment, progress)?;
        Ok((Pool::start(Arc::clone(self.backend()?), template, settings)?, lease, environment))
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &std::path::Path {
        &self.settings.data
    }

    /// The backend, started when it is first needed.
    ///
    /// # Errors
    /// What this host refuses.
    pub fn backend(&self) -> Result<&Arc<dyn Backend>, Error> {
        let _turn = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.backend.get().is_none() {
            let (_, start) = BACKENDS.first().ok_or_else(|| Error::new(ErrorKind::Internal, "there is no backend"))?;
            let _ = self.backend.set(start(self.settings.controls)?);
        }
        self.backend.get().ok_or_else(|| Error::new(ErrorKind::Internal, "there is no backend"))
    }

    /// A template of an environment, which cannot be removed while the lease is held.
    fn template(&self, name: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(TemplateId, Lease, Environment), Error> {
        let environment = self.ensure(name, &Options::default(), progress)?;
        let lease = environment.hold();
        let lease = lease.map_err(|_| Error::new(ErrorKind::Unavailable, format!("environment `{name}` was removed just now")).hint("run it again"))?;
        Ok((self.prepare(&environment)?, lease, environment))
    }

    fn prepare(&self, environment: &Environment) -> Result<TemplateId, Error> {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = templates.get(&environment.root) {
            return Ok(*known);
        }
        let template = runtime::template(environment).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        let prepared = self.backend()?.prepare(&template)?;
        templates.insert(environment.root.clone(), prepared);
        Ok(prepared)
    }

    fn ensure(&self, name: &str, options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Environment, Error> {
        let mut finish =
            |staged: &Environment| self.warm(staged).map_err(|error| EnvironmentError::Finish { name: staged.name.clone(), reason: error.to_string() });
        Ok(self.store.ensure(name, options, progress, &mut finish)?)
    }

    /// Runs an environment once in a sandbox before anybody sees it, and keeps the caches that this made: packages run nowhere else.
    fn warm(&self, environment: &Environment) -> Result<(), Error> {
        let template = self.prepare(environment)?;
        let request = RunRequest::warm_up(&environment.name, environment.cache_dir());
        let execution = run::run(self.backend()?.as_ref(), template, &request, &mut Silent, &Control::default())?;
        match execution.error {
            None => Ok(()),
            Some(error) => Err(Error::new(ErrorKind::Unavailable, format!("{}: {}", error.name, error.message))),
        }
    }
}

/// Nobody watches.
struct Silent;

impl Observer for Silent {
    fn wrote(&mut self, _: sandbox::Stream, _: &[u8]) {}
    fn showed(&mut self, _: &crate::Output) {}
    fn result(&mut self, _: &crate::Value) {}
}
