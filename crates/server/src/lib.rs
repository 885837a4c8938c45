//! The engine over HTTP: turns requests into calls of [`engine`], and what they come to into answers. The only crate that knows a wire format.
#![forbid(unsafe_code)]

pub mod app;
pub mod auth;
pub mod identity;
pub mod jwt;
pub mod listen;
pub mod metrics;
pub mod record;
pub mod settings;
pub mod tls;

mod aca;
mod admin;
mod body;
mod door;
mod error;
mod files;
mod health;
mod json;
mod limit;
mod rest;
mod tools;
mod trace;
