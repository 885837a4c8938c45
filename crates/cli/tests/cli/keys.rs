//! `belljar keys` and `belljar audit`: straight in the store, and by way of a server that runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value as Json;

use crate::serve::Place;
use crate::support::{Ended, Scene, eventually};

/// Calls belljar on this data folder.
fn on(scene: &Scene, data: &str, arguments: &[&str]) -> Ended {
    scene.call([&["--data", data], arguments].concat(), "")
}

fn json(ended: &Ended) -> Json {
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    serde_json::from_str(&ended.text()).unwrap()
}

/// Kinds and principals on record.
fn recorded(scene: &Scene, data: &str, arguments: &[&str]) -> Vec<String> {
    let ended = on(scene, data, &[&["audit", "query", "--json"], arguments].concat());
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let text = ended.text();
    let events = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    events.map(|event| format!("{} {}", event["kind"].as_str().unwrap(), event["principal"].as_str().unwrap_or("-"))).collect()
}

#[test]
fn keys_are_made_listed_and_revoked_without_a_server() {
    let (scene, place) = (Scene::new(), Place::new());
    let data = place.data();
    let made = on(&scene, data, &["keys", "create", "ci", "--pool", "a", "--pool", "b", "--principal", "team", "--expires-in", "30d"]);
    let key = made.text();
    let id = key.strip_prefix("bj_").unwrap().split('_').next().unwrap();
    assert_eq!((made.code(), key.lines().count()), (0, 1), "stdout holds the key and nothing else");
    assert!(made.stderr.starts_with(&format!("key {id} `ci`: execute in pools a,b; it is shown this once")), "{}", made.stderr);
    let whole = json(&on(&scene, data, &["keys", "create", "ops", "--role", "admin", "--role", "observe", "--max-sessions", "2", "--json"]));
    assert!(whole["key"].as_str().unwrap().starts_with(&format!("bj_{}_", whole["id"].as_str().unwrap())), "{whole}");
    assert_eq!((&whole["roles"], &whole["limits"]), (&serde_json::json!(["observe", "admin"]), &serde_json::json!({"maxSessions": 2})));
    let listed = on(&scene, data, &["keys", "list"]).text();
    assert!(listed.starts_with(&format!("{id}  ci  execute in pools a,b  expires 20")) && listed.contains("  for team\n"), "{listed}");
    let revoked = on(&scene, data, &["keys", "revoke", id]);
    assert_eq!((revoked.code(), revoked.stderr), (0, format!("key {id} is refused from now on\n")));
    let listed = json(&on(&scene, data, &["keys", "list", "--json"]));
    assert!(listed[0]["revokedAt"].is_string() && listed[1]["revokedAt"].is_null(), "{listed}");
    assert_eq!(recorded(&scene, data, &[]), ["key_created local", "key_created local", "key_revoked local"]);
    assert_eq!(recorded(&scene, data, &["--kind", "key_revoked"]), ["key_revoked local"]);
    assert_eq!(recorded(&scene, data, &["--limit", "1"]), ["key_revoked local"], "the latest");
    assert_eq!(recorded(&scene, data, &["--limit", "1", "--after", "0"]), ["key_created local"], "the first");
    assert_eq!(recorded(&scene, data, &["--since", "1h", "--until", "2000-01-01T00:00:00Z"]), Vec::<String>::new());
    let shown = on(&scene, data, &["audit", "query", "--kind", "key_revoked"]).text();
    assert!(shown.starts_with("3  20") && shown.contains("  key_revoked  principal=local  {\"for\":\"team\",\"key\":"), "{shown}");
}

#[test]
fn a_name_cannot_act_on_the_terminal() {
    let (scene, place) = (Scene::new(), Place::new());
    let name = "a\u{9b}2J\u{202e}b";
    // Control characters are refused; what hides or reorders is made inert.
    let refused = on(&scene, place.data(), &["keys", "create", name]);
    assert!(refused.code() == 2 && refused.stderr.contains("control character"), "{}", refused.stderr);
    assert_eq!(on(&scene, place.data(), &["keys", "create", "x\u{202e}y"]).code(), 0);
    for arguments in [&["keys", "list"][..], &["audit", "query"]] {
        let text = on(&scene, place.data(), arguments).text();
        assert!(!text.contains('\u{202e}') && text.contains("202"), "{text:?}");
    }
}

#[test]
fn mistakes_are_told_with_their_remedy() {
    let (scene, place) = (Scene::new(), Place::new());
    let data = place.data();
    let fails = |arguments: &[&str], code: i32, parts: &[&str]| {
        let ended = on(&scene, data, arguments);
        assert_eq!((ended.code(), ended.text().as_str()), (code, ""), "{arguments:?}: {}", ended.stderr);
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{arguments:?}: {}", ended.stderr);
    };
    fails(&["keys", "list"], 2, &["there is no record in", "check `--data`"]);
    fails(&["keys", "revoke", "x"], 2, &["there is no record in"]);
    fails(&["audit", "query"], 2, &["there is no record in", "belljar serve"]);
    assert!(!std::path::Path::new(data).join("belljar.db").exists(), "looking makes nothing");
    fails(&["keys", "create", "x", "--role", "admin", "--pool", "a"], 2, &["for all pools"]);
    fails(&["keys", "create", "x", "--role", "root"], 2, &["possible values: execute, observe, admin"]);
    fails(&["keys", "create", "x", "--expires-in", "soon"], 2, &["--expires-in"]);
    fails(&["keys", "create", "x", "--expires-in", "0s"], 2, &["expires after"]);
    assert_eq!(on(&scene, data, &["keys", "create", "x"]).code(), 0);
    fails(&["keys", "revoke", "nobody"], 2, &["there is no key `nobody`", "belljar keys list"]);
    fails(&["audit", "query", "--since", "yesterday"], 2, &["`yesterday` is not a time", "how long ago"]);
    fails(&["audit", "query", "--kind", "everything"], 2, &["key_created"]);
    let mut lock = File::options().write(true).open(std::path::Path::new(data).join("belljar.lock")).unwrap();
    lock.try_lock().unwrap();
    lock.set_len(0).unwrap();
    write!(lock, "4711").unwrap();
    fails(&["keys", "create", "x"], 2, &["in use by process 4711", "stop process 4711 first"]);
    assert_eq!(recorded(&scene, data, &[]), ["key_created local"], "reading goes on");
    drop(lock);
    let other = Place::new();
    symlink("/dev/null", std::path::Path::new(other.data()).join("belljar.db")).unwrap();
    let ended = on(&scene, other.data(), &["keys", "create", "x"]);
    assert!(ended.code() == 2 && ended.stderr.contains("is not a plain file"), "{}", ended.stderr);
    let open = Place::new();
    std::fs::set_permissions(open.data(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let ended = on(&scene, open.data(), &["keys", "create", "x"]);
    assert!(ended.code() == 2 && ended.stderr.contains("chmod o-w"), "{}", ended.stderr);
}

#[test]
fn a_server_that_runs_is_asked_and_obeys_at_once() {
    let (scene, place) = (Scene::new(), Place::with_environments());
    let config = place.config("[pools.default]\nready = 0\n");
    let mut server = place.start(&["--config", config.to_str().unwrap()], |_| {});
    let data = place.data();
    let key = on(&scene, data, &["keys", "create", "ops", "--role", "admin"]).text();
    let status = |key: &str| server.ask("GET /v1/admin/status", &format!("Authorization: Bearer {}\r\n", key.trim_end()), "").0;
    assert_eq!(status(&key), 200);
    let listed = json(&on(&scene, data, &["keys", "list", "--json"]));
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(listed[0]["name"], "ops");
    let ended = on(&scene, data, &["keys", "revoke", "nobody"]);
    assert!(ended.code() == 2 && ended.stderr.contains("there is no key `nobody`"), "{}", ended.stderr);
    assert_eq!(on(&scene, data, &["keys", "revoke", id]).code(), 0);
    assert_eq!(status(&key), 401, "refused at once");
    let expected = ["server_started -", "key_created local", "key_revoked local", "call_refused -"];
    assert!(eventually(|| recorded(&scene, data, &[]) == expected), "read while the server writes: {:?}", recorded(&scene, data, &[]));
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended(), 0);
    assert_eq!(recorded(&scene, data, &["--limit", "1"]), ["server_stopped -"]);
    assert!(std::fs::metadata(std::path::Path::new(data).join("belljar.db-wal")).map_or(0, |facts| facts.len()) == 0, "no journal is left behind");
    assert_eq!(on(&scene, data, &["keys", "list"]).code(), 0, "and without it they are asked for in the store");
}
