//! Flags. What each means stands in its help, and only there.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::LogFormat;

/// Run code of an AI agent in a fresh, isolated sandbox.
#[derive(Debug, Parser)]
#[command(name = "belljar", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the execution failed, 2 usage or configuration, 3 denied by policy, 4 our fault.";

const MCP: &str = "Started by an MCP client, which talks to it over pipes. Needs no server and no configuration; the first start builds the environment. \
                   What ran is on record below mcp/ in the data folder.";

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Folder for environments and state [default: the XDG data folder, belljar below it]
    #[arg(long, global = true, value_name = "DIR", env = "BELLJAR_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file [default: none]
    #[arg(long, global = true, value_name = "FILE", env = "BELLJAR_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run code once in a fresh sandbox; new files and pictures are copied out
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Build, list, show and remove environments: a Python with pinned packages
    Env {
        #[command(subcommand)]
        command: Env,
    },
    /// Tell which layers of isolation hold on this host, and how to get the rest
    #[command(after_help = "Exit status 1 when a layer that the configuration demands is missing.")]
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Measure what sandboxes take on this machine, beside what Python and bubblewrap take there
    #[command(after_help = "Exit status 0 whether goals are reached or not. A full run takes some minutes, and the machine for itself.")]
    Bench(Bench),
    /// Serve sandboxes over HTTP: sessions, files, many callers
    #[command(after_help = SERVE)]
    Serve(Serve),
    /// Give one agent its tools: MCP over standard input and output
    #[command(after_help = MCP)]
    Mcp,
    /// Make, list and revoke API keys
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// Read the record of what ran
    Audit {
        #[command(subcommand)]
        command: Audit,
    },
    /// Show or check the configuration
    Config {
        #[command(subcommand)]
        command: Config,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// File with the code; `-` or nothing reads it from standard input
    #[arg(value_name = "FILE")]
    pub(crate) code: Option<PathBuf>,
    /// Put this file into the working folder; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// Set `inputs["KEY"]` to a JSON value; may be given several times
    #[arg(long, value_name = "KEY=JSON")]
    pub(crate) input: Vec<String>,
    /// Language of the code [default: shell for files ending in .sh, else python]
    #[arg(long, value_enum)]
    pub(crate) language: Option<Language>,
    /// Seconds by the clock on the wall, 1 to 900 [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=900))]
    pub(crate) timeout: Option<u64>,
    /// Folder that new files and pictures are copied to
    #[arg(long, value_name = "DIR", default_value = "belljar-out")]
    pub(crate) out: PathBuf,
    /// Print one execution object instead of the output as it comes
    #[arg(long)]
    pub(crate) json: bool,
    /// Environment to run in, built when it is not there yet [default: core]
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Pass control sequences of the code's output to the terminal as they are
    #[arg(long)]
    pub(crate) raw: bool,
    /// Start a sandbox of its own, also where a server of this user runs on the data folder
    #[arg(long)]
    pub(crate) standalone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Python,
    Shell,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// Build an environment, or do nothing where it stands
    Build {
        /// `core`, or a name of your own with --requirements
        name: String,
        /// Requirements file of your own environment
        #[arg(long, value_name = "FILE")]
        requirements: Option<PathBuf>,
        /// Python interpreter to build on [default: 3.12 where found, else 3.11 or 3.13]
        #[arg(long, value_name = "PATH")]
        python: Option<PathBuf>,
    },
    /// List environments
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an environment with its packages
    Show {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an environment in all its builds
    Remove {
        /// Its name
        name: String,
    },
}

const SERVE: &str = "Each flag has a key of the same name below [server] in the configuration and, but for --log-level, a variable BELLJAR_<FLAG>. On loopback \
    it works without any configuration and prints a key; BELLJAR_DEV_KEY (16 characters or more) fixes that key. Elsewhere it needs TLS or a proxy in front, \
    keys (`belljar keys create`) or tokens of an issuer, and pools with `enabled = true`.\n\
    SIGTERM and SIGINT end it in order, a second one at once. SIGHUP reads certificates, the issuer's keys and the settings of [server] and [auth] anew; \
    addresses, pools and the data folder need a restart.";

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on; may be given several times [default: 127.0.0.1:8720]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// PEM file with the certificate
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Make a certificate for development; clients trust it by the file tls/self-signed.pem below
    /// the data folder
    #[arg(long, conflicts_with = "tls_certificate")]
    pub(crate) tls_self_signed: bool,
    /// Name of the proxy in front that ends TLS
    #[arg(long, value_name = "NAME")]
    pub(crate) behind_proxy: Option<String>,
    /// How the log is worded [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// What the log holds: error, warn, info, debug, or a list of filters
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

const KEYS: &str = "Where a server of this user runs on the data folder, it is asked, and what is changed holds at once.";

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key and print it: it is shown this once
    #[command(after_help = KEYS)]
    Create(CreateKey),
    /// List keys, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key: it is refused from then on
    #[command(after_help = KEYS)]
    Revoke {
        /// Its id, as `belljar keys list` tells it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateKey {
    /// What its holder is called
    pub(crate) name: String,
    /// What it is good for: execute code, observe the record and metrics, admin of keys; may be given several times [default: execute]
    #[arg(long, value_name = "ROLE", value_enum)]
    pub(crate) role: Vec<KeyRole>,
    /// Pool it is good for; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Vec<String>,
    /// Whom it stands for: keys of one principal share their sessions [default: itself]
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) principal: Option<String>,
    /// It expires after this time, e.g. 12h or 30d [default: never]
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires_in: Option<humantime::Duration>,
    /// Sessions at once [default: as configured for all]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_sessions: Option<u32>,
    /// Executions running or queued at once [default: as configured for all]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_executions: Option<u32>,
    /// Requests in a minute [default: as configured for all]
    #[arg(long, value_name = "COUNT")]
    pub(crate) requests_per_minute: Option<u32>,
    /// Bytes up and down in an hour [default: as configured for all]
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes_per_hour: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyRole {
    Execute,
    Observe,
    Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Print events in their order, the latest ones where there are more than the limit
    Query(Query),
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// At this time or later: RFC 3339 in UTC, or how long ago, e.g. 90m or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this time, likewise
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// What happened
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(store::EventKind::ALL.iter().map(|kind| kind.name())))]
    pub(crate) kind: Option<String>,
    /// By whom
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) principal: Option<String>,
    /// In which pool
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// In which session: its caller's id, or its own
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Of which execution
    #[arg(long, value_name = "ID")]
    pub(crate) execution: Option<String>,
    /// The first ones after the event of this number, instead of the latest ones
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<i64>,
    /// So many at most
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) limit: u64,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Few rounds and no crowd: whether everything works, in less than a minute
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds of the latency rows [default: 40, with --quick 2]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: Option<u32>,
    /// Sandboxes parked at once in the row `many` [default: 500, with --quick 0]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) parked: Option<u32>,
    /// Environment to measure, built when it is not there yet [default: core]
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// Measure these rows only
    #[arg(long, value_name = "ROW", value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<BenchRow>,
    /// Measure sessions over HTTP, with a server of its own on loopback, and nothing else
    #[arg(long, conflicts_with = "only")]
    pub(crate) serve: bool,
    /// With --serve: a Jupyter Kernel Gateway beside it, installed below the data folder
    #[arg(long, requires = "serve")]
    pub(crate) gateway: bool,
}

/// What `--only` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum BenchRow {
    Parked,
    Cold,
    Demand,
    Once,
    Python,
    Bwrap,
    Detail,
    Kill,
    Compute,
    Rate,
    Memory,
    Refill,
    Many,
    Serve,
}

impl BenchRow {
    /// As `--only` words it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Config {
    /// Print every value with where it came from
    Show,
    /// Check the configuration file
    Check,
}
