//! What a path asks for. Clients put paths behind an endpoint that somebody configured: with and without a slash at its end, in any case.

use std::fmt;

use percent_encoding::percent_decode_str;

/// A path of this surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) prefix: Prefix<'a>,
    pub(super) target: Target<'a>,
}

/// How a path names its pool. Parts are as they stand in the path, percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix<'a> {
    /// Not at all.
    Bare,
    /// `/pools/{pool}`
    Pool(&'a str),
    /// `/subscriptions/{subscription}/resourceGroups/{group}/sessionPools/{pool}`
    Resource { subscription: &'a str, group: &'a str, pool: &'a str },
}

/// What it is about. Names of files are as they stand in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    CodeExecute,
    PythonExecute,
    Executions,
    Execution(&'a str),
    Files,
    File(&'a str),
    OldContent(&'a str),
    NewContent(&'a str),
    DownloadFile,
    Session,
    Sessions,
    Metadata,
    Stop,
    /// The MCP server of a pool, which has to be named: without a name it is another surface's.
    Mcp,
}

impl<'a> Route<'a> {
    /// `None`: nothing of this surface.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let (first, rest) = segment(path)?;
        let (prefix, rest) = if first.eq_ignore_ascii_case("pools") {
            let (pool, rest) = segment(rest)?;
            (Prefix::Pool(pool), rest)
        } else if first.eq_ignore_ascii_case("subscriptions") {
            let (subscription, rest) = segment(rest)?;
            let (group, rest) = segment(word(rest, "resourceGroups")?)?;
            let (pool, rest) = segment(word(rest, "sessionPools")?)?;
            (Prefix::Resource { subscription, group, pool }, rest)
        } else {
            (Prefix::Bare, path)
        };
        let target = Target::parse(rest)?;
        (target != Target::Mcp || prefix != Prefix::Bare).then_some(Self { prefix, target })
    }
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let (first, rest) = segment(path)?;
        let last = |target: Self, rest: &str| is_end(rest).then_some(target);
        match first.to_ascii_lowercase().as_str() {
            "code" => last(Self::CodeExecute, word(rest, "execute")?),
            "python" => match word(rest, "execute") {
                Some(rest) => last(Self::PythonExecute, rest),
                None => last(Self::DownloadFile, word(rest, "downloadFile")?),
            },
            "executions" if is_end(rest) => Some(Self::Executions),
            "executions" => {
                let (id, rest) = segment(rest)?;
                last(Self::Execution(id), rest)
            }
            "files" => Some(Self::files(rest)),
            "session" => last(Self::Session, rest),
            "listsessions" => last(Self::Sessions, rest),
            "metadata" => last(Self::Metadata, rest),
            "mcp" => last(Self::Mcp, rest),
            ".management" => last(Self::Stop, word(rest, "stopSession")?),
            _ => None,
        }
    }

    /// Behind `files`. What stands behind it is a name, and stays as it is: it may be a path, and an absolute one.
    fn files(rest: &'a str) -> Self {
        let name = rest.strip_prefix('/').unwrap_or(rest);
        if is_end(name) {
            return Self::Files;
        }
        if let Some(content) = name.strip_prefix("content/").filter(|content| !is_end(content)) {
            return Self::OldContent(content);
        }
        let name = name.trim_end_matches('/');
        match name.strip_suffix("/content").filter(|name| !is_end(name)) {
            Some(name) => Self::NewContent(name),
            None => Self::File(name),
        }
    }
}

impl Prefix<'_> {
    /// The pool's name; `None`: the default pool.
    pub(super) fn pool(&self) -> Option<String> {
        match self {
            Self::Bare => None,
            Self::Pool(pool) | Self::Resource { pool, .. } => Some(percent_decode_str(pool).decode_utf8_lossy().into_owned()),
        }
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.prefix, self.target)
    }
}

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => Ok(()),
            Self::Pool(pool) => write!(formatter, "/pools/{pool}"),
            Self::Resource { subscription, group, pool } => write!(formatter, "/subscriptions/{subscription}/resourceGroups/{group}/sessionPools/{pool}"),
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CodeExecute => formatter.write_str("/code/execute"),
            Self::PythonExecute => formatter.write_str("/python/execute"),
            Self::Executions => formatter.write_str("/executions"),
            Self::Execution(id) => write!(formatter, "/executions/{id}"),
            Self::Files => formatter.write_str("/files"),
            Self::File(name) => write!(formatter, "/files/{name}"),
            Self::OldContent(name) => write!(formatter, "/files/content/{name}"),
            Self::NewContent(name) => write!(formatter, "/files/{name}/content"),
            Self::DownloadFile => formatter.write_str("/python/downloadFile"),
            Self::Session => formatter.write_str("/session"),
            Self::Sessions => formatter.write_str("/listSessions"),
            Self::Metadata => formatter.write_str("/metadata"),
            Self::Stop => formatter.write_str("/.management/stopSession"),
            Self::Mcp => formatter.write_str("/mcp"),
        }
    }
}

/// The next part of a path, and what follows with its slash.
fn segment(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_start_matches('/');
    let (segment, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    (!segment.is_empty()).then_some((segment, rest))
}

/// What follows this word.
fn word<'a>(path: &'a str, word: &str) -> Option<&'a str> {
    segment(path).filter(|(segment, _)| segment.eq_ignore_ascii_case(word)).map(|(_, rest)| rest)
}

fn is_end(path: &str) -> bool {
    path.bytes().all(|byte| byte == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<Target<'_>> {
        Route::parse(path).map(|route| route.target)
    }

    #[test]
    fn every_way_to_name_a_pool_leads_to_the_same() {
        let long = "/subscriptions/s1/resourceGroups/g1/sessionPools/p1";
        for (path, pool) in [
            ("/code/execute", None),
            ("//code/execute", None),
            ("/code/execute/", None),
            ("/pools/p1/code/execute", Some("p1")),
            ("/pools/p%201//code//execute", Some("p 1")),
            ("/subscriptions/s1/resourceGroups/g1/sessionPools/p1/code/execute", Some("p1")),
            ("/subscriptions/s1/resourcegroups/g1/sessionpools/p1//code/execute", Some("p1")),
        ] {
            let route = Route::parse(path).unwrap();
            assert_eq!((route.target, route.prefix.pool().as_deref()), (Target::CodeExecute, pool), "{path}");
        }
        assert_eq!(Route::parse("/pools/p1/MCP/").unwrap().to_string(), "/pools/p1/mcp");
        assert_eq!(Route::parse("/Subscriptions/s1/resourcegroups/g1/SESSIONPOOLS/p1//executions").unwrap().to_string(), format!("{long}/executions"));
    }

    #[test]
    fn names_of_files_stay_as_they_are() {
        assert_eq!(target("/files"), Some(Target::Files));
        assert_eq!(target("/files/"), Some(Target::Files));
        assert_eq!(target("/files/a%20b.txt"), Some(Target::File("a%20b.txt")));
        assert_eq!(target("/files/content"), Some(Target::File("content")));
        assert_eq!(target("/files/content/a/b.txt"), Some(Target::OldContent("a/b.txt")));
        assert_eq!(target("/pools/p/files/content//mnt/data/a.txt"), Some(Target::OldContent("/mnt/data/a.txt")));
        assert_eq!(target("/files/a.txt/content"), Some(Target::NewContent("a.txt")));
        assert_eq!(target("/files/a/b/content"), Some(Target::NewContent("a/b")));
        assert_eq!(target("/files/content/content"), Some(Target::OldContent("content")));
        assert_eq!(Route::parse("/pools/p//files/content//mnt/data/a").unwrap().to_string(), "/pools/p/files/content//mnt/data/a");
    }

    #[test]
    fn other_surfaces_are_not_touched() {
        for path in [
            "/",
            "/v1/sessions/abcd/files//a//b",
            "/healthz",
            "/metrics",
            "/pools",
            "/pools/p",
            "/mcp",
            "/mcp/",
            "/pools/p/mcp/x",
            "/metadata/identity/oauth2/token",
            "/code",
            "/session/x",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (_, path) in super::super::INVENTORY {
            for prefix in ["", "/pools/p", "/subscriptions/s/resourceGroups/g/sessionPools/p"] {
                let path = format!("{prefix}{path}");
                assert_eq!(Route::parse(&path).unwrap().to_string(), path);
            }
        }
    }
}
