//! The host's side of isolation: starts sandboxes, talks to their init, reaches their workspace, ends them.
//!
//! A [`Backend`] makes [`Sandbox`]es from a [`Template`]. Nothing above this crate knows processes, mounts or cgroups; nothing here
//! knows what an execution means. Blocking, no async runtime.

#![forbid(unsafe_code)]

pub mod backend;
pub mod cgroup;
pub mod folder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod launcher;
pub mod limits;
pub mod memory;
pub mod probe;
pub mod seccomp;
pub mod workspace;

pub use backend::{
    BACKENDS, Backend, Controls, Error, Lifeline, Preload, Remote, Sandbox, SpawnOptions, Template, TemplateId, TemplateProcess, Usage, WorkerStart,
};
pub use folder::Folder;
pub use limits::Limits;
pub use protocol::message::{End, Execute, Exit, FromInit, InitReady, Stream, ToInit, Work};
pub use workspace::Workspace;

/// Frame kinds of a worker that reach the host inside [`FromInit::Worker`].
pub use protocol::worker;
