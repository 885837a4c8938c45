//! The engine over HTTP: turns requests into calls of [`engine`], and what they come to into answers. The only crate that knows a wire format.
#![forbid(unsafe_code)]

pub mod app;
pub mod auth;
pub mod identity;
pub mod jwt;
pub mod listen;
pub mod mcp;
pub mod metrics;
pub mod record;
pub mod settings;
pub mod tls;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

mod aca;
mod admin;
mod body;
mod door;
mod error;
mod files;
mod health;
mod json;
mod limit;
mod queue;
mod rest;
mod throttle;
mod tools;
mod trace;

/// Compares with what is written down, or writes it down where that is asked for.
#[cfg(test)]
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("BELLJAR_UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "crates/server/{name} is not what the code describes: if this is meant, run the test with BELLJAR_UPDATE_GOLDENS=1");
}
