//! Artifacts and pictures of an execution on their way into the output folder: all of them, or none.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use engine::out::{self, Out};
use engine::{Error, ErrorKind, Output};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::client::Server;

/// Fetches what the execution tells of, and says there where it is now.
pub(super) fn collect(server: &Server, execution: &mut Json, folder: &Path) -> anyhow::Result<()> {
    // Sparse files and hard links can claim far more than the workspace holds.
    let mut room = execution.pointer("/limits/workspaceBytes").and_then(Json::as_u64).unwrap_or(u64::MAX);
    let mut target = Out::new(folder);
    let mut saved = Vec::new();
    for (index, artifact) in entries(execution, "artifacts").iter_mut().enumerate() {
        let url = artifact.get("url").and_then(Json::as_str).map(str::to_owned);
        let size = artifact.get("sizeBytes").and_then(Json::as_u64).unwrap_or(u64::MAX);
        set(artifact, "url", Json::Null);
        let (Some(url), Some(left)) = (url, room.checked_sub(size)) else { continue };
        let Some(name) = name(&url) else { continue };
        room = left;
        if fetch(server, &url, &name, &mut target, folder)? {
            target.add(&name);
            set(artifact, "url", json!(folder.join(&name).display().to_string()));
            saved.push((index, name));
        }
    }
    for entry in entries(execution, "outputs") {
        let mut output = Output::deserialize(&*entry)?;
        if output.is_picture() {
            target.save(&mut output)?;
            set(entry, "name", json!(output.name));
        }
    }
    let kept_out = target.finish()?;
    let artifacts = entries(execution, "artifacts");
    for (index, _) in saved.iter().filter(|(_, name)| kept_out.contains(name)) {
        if let Some(artifact) = artifacts.get_mut(*index) {
            set(artifact, "url", Json::Null);
        }
    }
    Ok(())
}

fn entries<'a>(execution: &'a mut Json, name: &str) -> &'a mut [Json] {
    execution.get_mut(name).and_then(Json::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

fn set(entry: &mut Json, name: &str, value: Json) {
    if let Some(member) = entry.get_mut(name) {
        *member = value;
    }
}

/// The path in the workspace that an artifact's address names.
fn name(url: &str) -> Option<PathBuf> {
    let path = url.split('?').next().unwrap_or_default();
    let (_, name) = path.split_once("/files/")?;
    Some(PathBuf::from(OsString::from_vec(percent_decode_str(name).collect())))
}

/// Fetches one file. False: it is gone, or has a name that the folder cannot take.
fn fetch(server: &Server, url: &str, name: &Path, target: &mut Out, folder: &Path) -> anyhow::Result<bool> {
    let mut file = match Out::create(target.staging()?, name) {
        Ok(file) => file,
        Err(error) if out::is_names_fault(&error) => return Ok(false),
        Err(error) => return Err(out::failed(&folder.join(name), &error).into()),
    };
    match server.fetch(url, 0, &mut file) {
        Ok(_) => Ok(true),
        Err(error) => match (error.downcast_ref::<Error>(), error.downcast_ref::<std::io::Error>()) {
            // Code that still runs has changed its mind.
            (Some(error), _) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => Ok(false),
            (_, Some(error)) => Err(out::failed(&folder.join(name), error).into()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_the_bytes_of_a_path() {
        let named = |url: &str| name(url).map(|path| path.into_os_string().into_vec());
        assert_eq!(named("/v1/sessions/s/files/a/b%20c?pool=x"), Some(b"a/b c".to_vec()));
        assert_eq!(named("/v1/sessions/s/files/%FF%3F%2Ffiles%2F"), Some(b"\xff?/files/".to_vec()));
        assert_eq!(named("data:text/plain,x"), None);
    }
}
