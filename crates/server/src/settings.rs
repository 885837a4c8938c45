//! What a server is set to. Read by whoever starts it; most of it can be changed while it runs.

use std::path::PathBuf;
use std::time::Duration;

/// Settings that a running server can take anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Names and addresses by which callers may call it, besides those of loopback.
    pub hosts: Vec<String>,
    /// Origins whose pages may change something.
    pub origins: Vec<String>,
    /// The proxy in front that ends TLS.
    pub behind_proxy: Option<String>,
    /// `/msi/token` answers.
    pub msi_token: bool,
    /// Limits at the door.
    pub limits: DoorLimits,
    /// Shares of callers whose key names none of its own.
    pub share: Share,
    /// Tokens of an issuer, where they are accepted.
    pub jwt: Option<JwtSettings>,
}

/// Limits at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at once.
    pub max_connections: usize,
    /// Connections of one address at once.
    pub max_connections_per_address: usize,
    /// Wrong keys of one address in a minute, after which they are refused unseen; 0: any number. Not counted behind a proxy, whose address all have.
    pub wrong_keys_per_minute: u32,
    /// From the first byte of a request to the end of its headers, and for a TLS handshake.
    pub header_timeout: Duration,
    /// A connection on which nothing is asked for so long is closed.
    pub idle_timeout: Duration,
    /// A body that stands still for so long, in either direction, is given up.
    pub body_timeout: Duration,
    /// The largest body of a request.
    pub body_bytes: u64,
    /// The largest upload.
    pub upload_bytes: u64,
}

/// How much of everything a caller may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Sessions at once.
    pub max_sessions: Option<usize>,
    /// Executions running or queued at once.
    pub max_executions: Option<usize>,
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Bytes in an hour, up and down together.
    pub bytes_per_hour: Option<u64>,
}

impl Share {
    /// With what this one does not say taken from another.
    pub(crate) fn or(self, other: &Self) -> Self {
        Self {
            max_sessions: self.max_sessions.or(other.max_sessions),
            max_executions: self.max_executions.or(other.max_executions),
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            bytes_per_hour: self.bytes_per_hour.or(other.bytes_per_hour),
        }
    }
}

/// Whose tokens are accepted, and what they must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// `iss`
    pub issuer: String,
    /// `aud`: one of these.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are.
    pub keys: JwksSource,
    /// The claim that names roles.
    pub role_claim: String,
    /// A value of that claim and the role (`execute`, `observe`, `admin`) that it gives.
    pub roles: Vec<(String, String)>,
    /// The claim that names pools; `None`: all pools.
    pub pools_claim: Option<String>,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// In a file.
    File(PathBuf),
    /// At an address, https only, and the certificates it is checked with where they are not the usual ones.
    Url(String, Option<PathBuf>),
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_per_address: 1024,
            wrong_keys_per_minute: 60,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            body_bytes: 16 << 20,
            upload_bytes: 128 << 20,
        }
    }
}
