//! Messages that two parsers could read in two ways: 400, and the connection is closed.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ambiguous_is_refused_and_nothing_after_it_is_read() {
    let served = served(DoorLimits::default()).await;
    let auth = format!("Host: localhost\r\nx-ms-apikey: {KEY}\r\n");
    let next = format!("GET /healthz HTTP/1.1\r\n{auth}\r\n");
    for (name, text) in [
        ("length, then coding", format!("POST /test/echo HTTP/1.1\r\n{auth}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("coding, then length", format!("POST /test/echo HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n")),
        ("two lengths", format!("POST /test/echo HTTP/1.1\r\n{auth}Content-Length: 4\r\nContent-Length: 5\r\n\r\n12345")),
        ("the same length twice", format!("POST /test/echo HTTP/1.1\r\n{auth}Content-Length: 4\r\nContent-Length: 4\r\n\r\n1234")),
        ("a list of lengths", format!("POST /test/echo HTTP/1.1\r\n{auth}Content-Length: 4, 4\r\n\r\n1234")),
        ("a length with a sign", format!("POST /test/echo HTTP/1.1\r\n{auth}Content-Length: +4\r\n\r\n1234")),
        ("an unknown coding", format!("POST /test/echo HTTP/1.1\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("two codings", format!("POST /test/echo HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n")),
        ("space before a colon", format!("POST /test/echo HTTP/1.1\r\n{auth}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("a coding in 1.0", format!("POST /test/echo HTTP/1.0\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a bare LF", format!("GET /healthz HTTP/1.1\n{auth}\r\n")),
        ("a bare LF in headers", format!("GET /healthz HTTP/1.1\r\n{auth}x: y\nz: a\r\n\r\n")),
        ("a bare CR", format!("GET /healthz HTTP/1.1\r\n{auth}x: y\rz: a\r\n\r\n")),
        ("a folded header", format!("GET /healthz HTTP/1.1\r\n{auth}x: y\r\n z\r\n\r\n")),
        ("a NUL", format!("GET /healthz HTTP/1.1\r\n{auth}x: y\0\r\n\r\n")),
        ("an absolute form", format!("GET http://localhost/healthz HTTP/1.1\r\n{auth}\r\n")),
        ("an authority form", format!("CONNECT localhost:80 HTTP/1.1\r\n{auth}\r\n")),
        ("HTTP/0.9", "GET /healthz\r\n\r\n".to_owned()),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("two hosts", format!("GET /healthz HTTP/1.1\r\n{auth}Host: localhost\r\n\r\n")),
        ("TLS", "\x16\x03\x01\x02\x01".to_owned() + "x\r\n\r\n"),
        ("nothing sane", "\r\r\r\r\n\n\n".to_owned()),
    ] {
        let answer = served.talk(text.clone() + &next).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: what follows is not answered: {answer}");
    }
    // The control: two clear ones are both answered.
    let last = format!("GET /healthz HTTP/1.1\r\nConnection: close\r\n{auth}\r\n");
    let clear = format!("POST /test/echo HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n{next}{last}");
    let answer = served.talk(clear).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_none_ends_the_connection() {
    let served = served(DoorLimits::default()).await;
    for chunk in ["x\r\nabcd\r\n0\r\n\r\n", "4\nabcd\r\n0\r\n\r\n", "4\r\nabcdX\r\n0\r\n\r\n", "-4\r\nabcd\r\n", "11111111111111111\r\n"] {
        let request = format!("POST /test/echo HTTP/1.1\r\nHost: localhost\r\nx-ms-apikey: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        let answer = served.talk(request + "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 ").count() == 1, "{chunk:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_limits() {
    let served = served(DoorLimits::default()).await;
    let many: String = (0..200).map(|number| format!("x{number}: y\r\n")).collect();
    assert_eq!(status(&served.ask("GET /healthz", &many, "").await), "431");
    let long = format!("x: {}\r\n", "y".repeat(60 * 1024));
    assert_eq!(status(&served.ask("GET /healthz", &long, "").await), "200");
    assert_eq!(status(&served.ask("GET /healthz", &long.repeat(2), "").await), "431");
}
