//! The engine over HTTP: turns requests into calls of [`engine`], and what they come to into answers. The only crate that knows a wire format.
#![forbid(unsafe_code)]

pub mod app;
pub mod auth;
pub mod identity;
pub mod listen;
pub mod settings;

mod error;
mod health;
