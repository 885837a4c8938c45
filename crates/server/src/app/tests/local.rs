//! Over the socket in the file system.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixStream;

use super::*;

fn served_locally() -> (Served, std::path::PathBuf) {
    let (app, folder) = app(Settings::default());
    let path = folder.path().join("server.sock");
    let listener = Listener::unix(&path).unwrap();
    (serve_here(app, folder, vec![listener], "127.0.0.1:1".parse().unwrap()), path)
}

async fn ask(path: &Path, request_line: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(format!("{request_line} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    rest(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_this_machine_needs_no_key() {
    let (served, path) = served_locally();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = ask(&path, "GET /metrics").await;
    assert!(status(&answer) == "200" && answer.contains("belljar_connections"), "{answer}");
    let error = Listener::unix(&path).map(drop).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "a server that answers is not pushed aside");
    served.stop.cancel();
    let mut served = served;
    in_time(&mut served.serving).await.unwrap();
    assert!(!path.exists(), "it goes with the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nobody_answers_on_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "as a server leaves it that was killed");
    let _listener = Listener::unix(&path).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(Listener::unix(&file).map(drop).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine", "what is no socket is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_sent_away() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    let (served, path) = served_locally();
    // Even where the file would let it in.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(served.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let connect = path.clone();
    let stream = std::thread::spawn(move || {
        // Of this thread only, which ends.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
        let stream = std::os::unix::net::UnixStream::connect(connect).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    });
    let mut stream = UnixStream::from_std(stream.join().unwrap()).unwrap();
    let _ = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(status(&ask(&path, "GET /healthz").await), "200", "the control");
}
