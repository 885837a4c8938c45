//! Configuration: defaults, then the file, then variables and flags. The only place that reads any of them.

mod section;
mod server;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use sandbox::Limits;
use serde::{Deserialize, Serialize};

use self::server::{AuthSection, Inherited, PoolSection, Tables};
use crate::args::Global;
use crate::exit::usage;

pub(crate) use self::section::Names;
pub(crate) use self::server::{Durability, LogFormat, Server, ServerSection};

/// The defaults, as a file that documents every key.
const DEFAULTS: &str = include_str!("config.default.toml");

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File,
    Flag,
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Known<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Everything that is configured.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub(crate) data: Known<PathBuf>,
    pub(crate) environment: Known<String>,
    pub(crate) python: Known<Option<PathBuf>>,
    pub(crate) process_spawning: Known<bool>,
    pub(crate) require: Known<Vec<String>>,
    pub(crate) limits: Limits,
    pub(crate) server: Server,
    limit_origins: Vec<(String, Origin)>,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    environment: Option<String>,
    python: Option<PathBuf>,
    process_spawning: Option<Spawning>,
    require: Option<Vec<String>>,
    limits: Option<FileLimits>,
    server: Option<ServerSection>,
    auth: Option<AuthSection>,
    pools: Option<BTreeMap<String, PoolSection>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spawning {
    Allow,
    Deny,
}

macro_rules! limits {
    ($($name:ident: $kind:ty),* $(,)?) => {
        /// Limits as the file words them.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct FileLimits { $($name: Option<$kind>),* }

        impl FileLimits {
            /// Puts what is given over `limits`, and lists every limit with its origin.
            fn apply(&self, limits: &mut Limits, origin: Origin, origins: &mut Vec<(String, Origin)>) {
                $(
                    if let Some(value) = self.$name {
                        limits.$name = value;
                        origins.retain(|(name, _)| name != stringify!($name));
                        origins.push((stringify!($name).to_owned(), origin));
                    }
                )*
            }
        }

        fn limit_lines(limits: &Limits) -> Vec<(&'static str, String)> {
            vec![$((stringify!($name), limits.$name.to_string())),*]
        }
    };
}

limits! {
    wall_seconds: u64,
    cpu_seconds: u64,
    cpus: f64,
    memory_bytes: u64,
    processes: u64,
    open_files: u64,
    workspace_bytes: u64,
    workspace_inodes: u64,
    tmp_bytes: u64,
    output_bytes: u64,
}

impl Configuration {
    /// Reads everything.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, or has an unknown key or a value out of range.
    pub(crate) fn read(global: &Global, flags: &ServerSection) -> anyhow::Result<Self> {
        Self::read_with(global, flags, &|name| std::env::var_os(name))
    }

    fn read_with(global: &Global, flags: &ServerSection, variable: &dyn Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let mut defaults: File = toml::from_str(DEFAULTS)?;
        let mut file = match &global.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let mut limits = Limits::default();
        let mut limit_origins = Vec::new();
        for (layer, origin) in [(&defaults, Origin::Default), (&file, Origin::File)] {
            if let Some(given) = &layer.limits {
                given.apply(&mut limits, origin, &mut limit_origins);
            }
        }
        let data = match (&global.data, file.data.take()) {
            (Some(data), _) => Known { value: data.clone(), origin: Origin::Flag },
            (None, Some(data)) => Known { value: data, origin: Origin::File },
            (None, None) => Known { value: default_data()?, origin: Origin::Default },
        };
        let spawning = layered(file.process_spawning, defaults.process_spawning.unwrap_or(Spawning::Deny));
        let environment = layered(file.environment.take(), defaults.environment.take().unwrap_or_default());
        check_limits(&limits)?;
        let process_spawning = Known { value: spawning.value == Spawning::Allow, origin: spawning.origin };
        let given = ServerSection::merge(&[(&variables(variable)?, Origin::Flag), (flags, Origin::Flag)]);
        let given = Tables { server: given, ..Tables::default() };
        let inherited = Inherited { environment: &environment.value, process_spawning: process_spawning.value, limits };
        let (documented, filed) = (defaults.tables(), file.tables());
        let mut layers = vec![(&documented, Origin::Default)];
        if global.config.is_some() {
            layers.push((&filed, Origin::File));
        }
        layers.push((&given, Origin::Flag));
        let server = Server::resolve(&layers, &inherited)?;
        let configuration = Self {
            data,
            environment,
            python: layered(file.python.map(Some), None),
            process_spawning,
            require: layered(file.require, defaults.require.unwrap_or_default()),
            limits,
            server,
            limit_origins,
        };
        configuration.check()?;
        Ok(configuration)
    }

    fn check(&self) -> anyhow::Result<()> {
        let known = crate::command::doctor_layers();
        match self.require.value.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(usage(format!("`require` names the unknown layer `{name}`"), format!("known are: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// Where a limit came from.
    pub(crate) fn limit_origin(&self, name: &str) -> Origin {
        self.limit_origins.iter().find(|(limit, _)| limit == name).map_or(Origin::Default, |(_, origin)| *origin)
    }

    /// Limits that are not just the defaults, under their names in JSON.
    pub(crate) fn configured_limits(&self) -> serde_json::Map<String, serde_json::Value> {
        let given = limit_lines(&self.limits).into_iter().filter(|(name, _)| self.limit_origin(name) != Origin::Default);
        given.filter_map(|(name, value)| Some((camel_case(name), serde_json::from_str(&value).ok()?))).collect()
    }

    /// Every value with its origin, as TOML.
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str, origin: Origin| {
            let origin = match origin {
                Origin::Default => "default",
                Origin::File => "file",
                Origin::Flag => "flag or variable",
            };
            let _ = writeln!(text, "{name} = {value}  # {origin}");
        };
        line("data", &format!("{:?}", self.data.value), self.data.origin);
        line("environment", &format!("{:?}", self.environment.value), self.environment.origin);
        if let Some(python) = &self.python.value {
            line("python", &format!("{python:?}"), self.python.origin);
        }
        line("process_spawning", if self.process_spawning.value { "\"allow\"" } else { "\"deny\"" }, self.process_spawning.origin);
        line("require", &format!("{:?}", self.require.value), self.require.origin);
        for (name, value) in limit_lines(&self.limits) {
            line(&format!("limits.{name}"), &value, self.limit_origin(name));
        }
        for (name, value, origin) in self.server.lines() {
            line(name, value, *origin);
        }
        text
    }
}

impl File {
    /// The server's tables, which are taken out.
    fn tables(&mut self) -> Tables {
        let jwt = self.auth.take().and_then(|auth| auth.jwt).unwrap_or_default();
        Tables { server: self.server.take().unwrap_or_default(), jwt, pools: self.pools.take().unwrap_or_default() }
    }
}

/// What variables say of the server.
fn variables(variable: &dyn Fn(&str) -> Option<OsString>) -> anyhow::Result<ServerSection> {
    let text = |name: &str| match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Err(_)) => Err(usage(format!("`{name}` is not text"), "give it as UTF-8")),
    };
    let names = |name: &str| anyhow::Ok(text(name)?.map(|text| Names::Many(text.split(',').map(|part| part.trim().to_owned()).collect())));
    let self_signed = match text("BELLJAR_TLS_SELF_SIGNED")?.as_deref() {
        None => None,
        Some("1" | "true") => Some(true),
        Some("0" | "false") => Some(false),
        Some(other) => return Err(usage(format!("`BELLJAR_TLS_SELF_SIGNED` is `{other}`"), "give true or false")),
    };
    let log_format = match text("BELLJAR_LOG_FORMAT")?.as_deref() {
        None => None,
        Some("text") => Some(LogFormat::Text),
        Some("json") => Some(LogFormat::Json),
        Some(other) => return Err(usage(format!("`BELLJAR_LOG_FORMAT` is `{other}`"), "give text or json")),
    };
    Ok(ServerSection {
        listen: names("BELLJAR_LISTEN")?,
        tls_certificate: variable("BELLJAR_TLS_CERTIFICATE").map(PathBuf::from),
        tls_key: variable("BELLJAR_TLS_KEY").map(PathBuf::from),
        tls_self_signed: self_signed,
        behind_proxy: text("BELLJAR_BEHIND_PROXY")?,
        hosts: names("BELLJAR_HOSTS")?,
        origins: names("BELLJAR_ORIGINS")?,
        log_format,
        ..ServerSection::default()
    })
}

/// The key of development, where one is given.
///
/// # Errors
/// It is shorter than 16 characters, or cannot stand in a header.
pub(crate) fn dev_key() -> anyhow::Result<Option<String>> {
    let Some(key) = std::env::var_os("BELLJAR_DEV_KEY").filter(|key| !key.is_empty()) else { return Ok(None) };
    match key.into_string() {
        Ok(key) if key.chars().count() >= 16 && key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(key)),
        _ => Err(usage("`BELLJAR_DEV_KEY` is no key", "give at least 16 letters, digits and signs, without spaces")),
    }
}

/// Where a service manager wants to hear of us.
pub(crate) fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// # Errors
/// A limit that cannot be.
fn check_limits(limits: &Limits) -> anyhow::Result<()> {
    if !(0.01..=4096.0).contains(&limits.cpus) {
        return Err(usage(format!("the limit `cpus` is {}", limits.cpus), "give a number from 0.01 to 4096"));
    }
    if !(1..=900).contains(&limits.wall_seconds) {
        return Err(usage(format!("the limit `wall_seconds` is {}", limits.wall_seconds), "give a number from 1 to 900"));
    }
    match limit_lines(limits).iter().find(|(_, value)| value == "0") {
        Some((name, _)) => Err(usage(format!("the limit `{name}` is 0"), "leave it out to keep the default")),
        None => Ok(()),
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let mut letters = word.chars();
        let initial = letters.next().map(|letter| letter.to_ascii_uppercase());
        text + &initial.into_iter().chain(letters).collect::<String>()
    })
}

fn layered<T>(file: Option<T>, default: T) -> Known<T> {
    match file {
        Some(value) => Known { value, origin: Origin::File },
        None => Known { value: default, origin: Origin::Default },
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("cannot read the configuration `{name}`: {error}"), "check --config or BELLJAR_CONFIG"))?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        usage(format!("the configuration `{name}` is not valid at line {place}: {}", error.message()), "see `belljar config show` for every key")
    })
}

/// `$XDG_DATA_HOME/belljar`, else `~/.local/share/belljar`.
fn default_data() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    base.map(|base| base.join("belljar")).ok_or_else(|| usage("there is no folder for data: HOME is not set", "name one with --data or BELLJAR_DATA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Configuration> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belljar.toml");
        std::fs::write(&path, text).unwrap();
        Configuration::read_with(&Global { data: Some("/d".into()), config: Some(path) }, &ServerSection::default(), &|_| None)
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let configuration = Configuration::read_with(&Global { data: Some("/d".into()), config: None }, &ServerSection::default(), &|_| None).unwrap();
        assert_eq!(configuration.limits, Limits::default());
        assert_eq!(limit_lines(&configuration.limits).len(), configuration.limit_origins.len(), "every limit is documented");
        assert_eq!(configuration.environment.value, "core");
    }

    #[test]
    fn without_a_file_there_is_one_pool_on_loopback() {
        let configuration = Configuration::read_with(&Global { data: Some("/d".into()), config: None }, &ServerSection::default(), &|_| None).unwrap();
        let server = &configuration.server;
        assert_eq!(server.listen, ["127.0.0.1:8720".parse().unwrap()]);
        assert_eq!(server.settings, ::server::settings::Settings::default(), "the documented limits are the limits");
        let [pool] = server.pools.as_slice() else { panic!("{:?}", server.pools) };
        let (settings, defaults) = (&pool.settings, engine::PoolSettings::default());
        assert_eq!((settings.name.as_str(), settings.environment.as_str(), settings.sandboxes.ready, pool.enabled), ("default", "core", 4, None));
        assert_eq!((settings.sandboxes.template_bytes, settings.sandboxes.reserve_bytes), (defaults.template_bytes, defaults.reserve_bytes));
        assert!(settings.sandboxes.shell && !settings.sandboxes.process_spawning && settings.create_on_use && server.default_pool == "default");
    }

    #[test]
    fn flags_are_over_variables_and_those_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belljar.toml");
        std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:1\"\nhosts = [\"file\"]\nbehind_proxy = \"file\"\n").unwrap();
        let flags = ServerSection { listen: Some(Names::Many(vec!["127.0.0.1:3".to_owned()])), ..ServerSection::default() };
        let variable = |name: &str| match name {
            "BELLJAR_LISTEN" => Some("127.0.0.1:2".into()),
            "BELLJAR_HOSTS" => Some("a, b".into()),
            _ => None,
        };
        let configuration = Configuration::read_with(&Global { data: Some("/d".into()), config: Some(path) }, &flags, &variable).unwrap();
        let server = &configuration.server;
        assert_eq!(server.listen, ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!((server.settings.hosts.as_slice(), server.settings.behind_proxy.as_deref()), (["a", "b"].map(str::to_owned).as_slice(), Some("file")));
        let shown = configuration.show();
        assert!(shown.contains("server.hosts = [\"a\", \"b\"]  # flag or variable\n") && shown.contains("server.behind_proxy = \"file\"  # file\n"), "{shown}");
        assert!(shown.contains("server.limits.body_bytes = 16777216  # default\n") && shown.contains("pools.default.ready = 4  # default\n"), "{shown}");
    }

    #[test]
    fn pools_take_what_they_do_not_say_from_above() {
        let configuration = read(
            "environment = \"mine\"\nprocess_spawning = \"allow\"\n[limits]\nprocesses = 7\n[pools.a]\nenabled = true\nready = 0\n[pools.a.limits]\ncpus = 0.5\n\
             [pools.b]\nenvironment = \"core\"\nshell = \"deny\"\nenabled = false\n",
        )
        .unwrap();
        let [a, b] = configuration.server.pools.as_slice() else { panic!("{:?}", configuration.server.pools) };
        assert_eq!((a.settings.environment.as_str(), a.settings.sandboxes.limits.processes, a.settings.sandboxes.ready), ("mine", 7, 0));
        assert!((a.settings.sandboxes.limits.cpus - 0.5).abs() < 1e-9 && a.settings.sandboxes.process_spawning && a.enabled == Some(true));
        assert!(b.settings.environment == "core" && !b.settings.sandboxes.shell && b.settings.sandboxes.ready == 4 && b.enabled == Some(false));
        assert_eq!(configuration.server.default_pool, "a", "the only one that is on");
        assert!(configuration.show().contains("pools.a.limits.cpus = 0.5  # file\n"), "{}", configuration.show());
    }

    #[test]
    fn variables_that_are_no_values_are_refused() {
        for (name, value) in [("BELLJAR_TLS_SELF_SIGNED", "perhaps"), ("BELLJAR_LOG_FORMAT", "xml"), ("BELLJAR_LISTEN", "here")] {
            let variable = |asked: &str| (asked == name).then(|| value.into());
            let read = Configuration::read_with(&Global { data: Some("/d".into()), config: None }, &ServerSection::default(), &variable);
            assert!(read.unwrap_err().to_string().contains(value), "{name}");
        }
    }

    #[test]
    fn the_file_is_over_the_defaults_and_says_so() {
        let configuration = read("environment = \"mine\"\n[limits]\nmemory_bytes = 5\n").unwrap();
        let shown = configuration.show();
        assert!(shown.contains("environment = \"mine\"  # file\n") && shown.contains("limits.memory_bytes = 5  # file\n"), "{shown}");
        assert!(shown.contains("limits.cpus = 1  # default\n") && shown.contains("data = \"/d\"  # flag or variable\n"), "{shown}");
        assert_eq!(serde_json::Value::from(configuration.configured_limits()).to_string(), r#"{"memoryBytes":5}"#);
    }

    #[test]
    fn bad_files_are_refused_with_the_place() {
        for (text, expected) in [
            ("nonsense = 1", "unknown field `nonsense`"),
            ("\n\n[limits]\nmemory = 1", "at line 4"),
            ("[limits]\ncpus = 0.0", "`cpus` is 0"),
            ("[limits]\nprocesses = 0", "`processes` is 0"),
            ("[limits]\nwall_seconds = 901", "`wall_seconds` is 901"),
            ("require = [\"moat\"]", "unknown layer `moat`"),
            ("process_spawning = \"maybe\"", "at line 1"),
            ("[server]\nlisten = \"x\"", "`x` is no address"),
            ("[server]\n\nport = 1", "at line 3"),
            ("[server.limits]\nbody_bytes = 0", "`body_bytes` is 0"),
            ("[server.limits]\nheader_timeout_seconds = 0", "`header_timeout_seconds` is 0"),
            ("[server.callers]\nmax_sessions = 0", "`server.callers.max_sessions` is 0"),
            ("[server]\ntls_key = \"k\"", "go together"),
            ("[server]\ntls_key = \"k\"\ntls_certificate = \"c\"\ntls_self_signed = true", "beside a certificate"),
            ("[server]\ndefault_pool = \"x\"", "`default_pool` names `x`"),
            ("[pools.a]\n[pools.b]", "none of the pools is the default"),
            ("[pools.a]\nenabled = false", "no pool is on"),
            ("[pools.default]\nbackend = \"kvm\"", "asks for `kvm`"),
            ("[pools.default]\nbackend = \"x\"", "unknown backend `x`"),
            ("[pools.default]\nnetwork = \"all\"", "asks for the network `all`"),
            ("[pools.default]\nmax_session = 1", "unknown field `max_session`"),
            ("[pools.default]\nmax_sessions = 0", "`pools.default.max_sessions` is 0"),
            ("[pools.default.limits]\ncpus = 0.0", "`cpus` is 0"),
            ("[pools.\"a b\"]", "`a b` is no name for a pool"),
            ("[auth.jwt]\nissuer = \"x\"", "`auth.jwt` needs"),
            ("[auth.jwt]\nissuer = \"x\"\naudiences = \"y\"", "needs one of"),
            ("[auth.jwt]\nissuer = \"x\"\naudiences = \"y\"\njwks_url = \"http://x\"", "does not begin with https://"),
            ("[auth.jwt]\nissuer = \"x\"\naudiences = \"y\"\njwks_file = \"f\"\nroles = { a = \"root\" }", "unknown role `root`"),
            ("[auth.oauth]", "unknown field `oauth`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
