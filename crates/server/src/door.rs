//! Whom a request says it is for and whose page it comes from: against names that point at this machine to get past a browser, and against
//! pages that make a browser call.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use engine::{Error, ErrorKind};

use crate::app::App;
use crate::error::refusal;
use crate::listen::Peer;
use crate::metrics;
use crate::settings::Settings;

/// Lets requests pass that are for us, and from where they may come.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(Peer::Remote { loopback, .. }) = request.extensions().get::<Peer>().copied() else {
        // No browser reaches a socket in the file system.
        return next.run(request).await;
    };
    let settings = app.settings();
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !is_ours(host, loopback, &settings) {
        metrics::refused("host");
        let error = Error::new(ErrorKind::InvalidRequest, "this server does not answer to that name").hint("add it to `hosts` in the configuration");
        let mut response = refusal(request.uri().path(), error);
        *response.status_mut() = if host.is_none() && loopback.is_none() { StatusCode::BAD_REQUEST } else { StatusCode::MISDIRECTED_REQUEST };
        return response;
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path().ends_with("/mcp");
    if changes && !is_from_allowed(headers, host, &settings) {
        metrics::refused("origin");
        let error = Error::new(ErrorKind::Denied, "pages of this origin may not call").hint("add the origin to `origins` in the configuration");
        return refusal(request.uri().path(), error);
    }
    next.run(request).await
}

/// Whether a `Host` means us: on an address of this machine only, its own names and those configured; elsewhere those configured, if any.
fn is_ours(host: Option<&str>, loopback: Option<IpAddr>, settings: &Settings) -> bool {
    let Some(name) = host.and_then(name_of) else { return false };
    let configured = settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    match loopback {
        None => configured || settings.hosts.is_empty(),
        Some(address) => configured || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|named| named == address || is_own(named)),
    }
}

fn is_own(address: IpAddr) -> bool {
    address == IpAddr::from([127, 0, 0, 1]) || address == IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
}

/// The name in a `Host`, without port and brackets; `None` for what is no host.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, after)| (name, after.strip_prefix(':').or(after.is_empty().then_some(""))))?,
        None => host.split_once(':').map_or((host, Some("")), |(name, port)| (name, Some(port))),
    };
    let good = !name.is_empty() && !name.contains(['@', '/', '\\', ' ', '?', '#', ',']);
    (good && port?.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Whether the page is one of ours, or of an allowed origin; what is no browser names none.
fn is_from_allowed(headers: &HeaderMap, host: Option<&str>, settings: &Settings) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let Some(origin) = origin.to_str().ok().filter(|_| origins.next().is_none()) else { return false };
    let same = origin.split_once("://").is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && host == Some(rest));
    same || settings.origins.iter().any(|known| known.trim_end_matches('/').eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let mut settings = Settings::default();
        for good in ["localhost", "LOCALHOST:8720", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8720"] {
            assert!(is_ours(Some(good), here, &settings), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "localhost:80@evil.example",
            "evil@localhost",
            "[::1",
            "[::1]x",
            "::1:80",
            "",
            ":80",
            "127.0.0.2",
            "0.0.0.0",
            "localhost:8x",
            "localhost,evil",
        ] {
            assert!(!is_ours(Some(bad), here, &settings), "{bad}");
        }
        assert!(!is_ours(None, here, &settings));
        assert!(is_ours(Some("127.0.0.2:80"), Some(IpAddr::from([127, 0, 0, 2])), &settings), "the address that it listens on");
        assert!(is_ours(Some("any.example"), None, &settings) && !is_ours(None, None, &settings), "off loopback, as long as none is configured");
        settings.hosts = vec!["Box.example".to_owned()];
        assert!(is_ours(Some("box.example:443"), None, &settings) && is_ours(Some("box.example"), here, &settings));
        assert!(!is_ours(Some("any.example"), None, &settings));
    }

    #[test]
    fn origins() {
        let settings = Settings { origins: vec!["https://chat.example".to_owned()], ..Settings::default() };
        let allowed = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            is_from_allowed(&headers, Some("localhost:8720"), &settings)
        };
        assert!(allowed(&[]) && allowed(&["https://chat.example"]) && allowed(&["http://localhost:8720"]));
        for bad in
            ["null", "http://evil.example", "https://chat.example.evil.example", "https://chat.example:444", "http://localhost", "file://localhost:8720", ""]
        {
            assert!(!allowed(&[bad]), "{bad}");
        }
        assert!(!allowed(&["https://chat.example", "https://chat.example"]), "two");
    }
}
