//! Reads the routes out of what a router says of itself.

use std::collections::BTreeMap;

/// What each route is called in the text.
const ID: &str = "RouteId(";
/// Methods of a route that takes all.
const ALL: [&str; 7] = ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "POST", "PUT"];

/// Methods and paths in the debugging text of a router: only there does it tell them.
pub(super) fn read(text: &str) -> Vec<(String, String)> {
    // The second half is about what is called where no route fits.
    let own = text.split(", fallback_router: ").next().unwrap_or_default();
    let (routes, paths) = own.split_once(", node: Node ").unwrap_or_default();
    let paths: BTreeMap<&str, &str> = entries(paths).filter_map(|(id, text)| Some((id, text.split('"').nth(1)?))).collect();
    let mut found: Vec<(String, String)> = Vec::new();
    for (id, endpoint) in entries(routes) {
        let Some(path) = paths.get(id) else { continue };
        let listed = endpoint.split_once("allow_header: Bytes(b\"").and_then(|(_, rest)| rest.split('"').next());
        let methods: Vec<&str> = listed.map_or_else(|| ALL.to_vec(), |listed| listed.split(',').collect());
        found.extend(methods.into_iter().map(|method| (method.to_owned(), (*path).to_owned())));
    }
    found.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    found
}

/// The routes' ids, each with what is said of it.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(ID).skip(1).filter_map(|entry| entry.split_once("): "))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::{any, get};

    #[test]
    fn a_router_tells_its_routes() {
        async fn nothing() {}
        let inner: Router = Router::new().route("/inner", get(nothing)).layer(tower_http::catch_panic::CatchPanicLayer::new());
        let router: Router = Router::new().route("/a/{x}", get(nothing).put(nothing)).route("/any", any(nothing)).merge(inner).fallback(nothing);
        let found: Vec<String> = super::read(&format!("{router:?}")).into_iter().map(|(method, path)| format!("{method} {path}")).collect();
        assert_eq!(found.get(..3), Some(["GET /a/{x}", "HEAD /a/{x}", "PUT /a/{x}"].map(str::to_owned).as_slice()), "{found:?}");
        assert_eq!(found.iter().filter(|route| route.ends_with(" /any")).count(), super::ALL.len(), "{found:?}");
        assert!(found.contains(&"GET /inner".to_owned()) && found.len() == 3 + super::ALL.len() + 2, "{found:?}");
    }
}
