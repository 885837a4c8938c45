//! Clients that are slow, many, or late.

use super::*;

fn quick() -> DoorLimits {
    DoorLimits { header_timeout: Duration::from_millis(300), idle_timeout: Duration::from_millis(600), ..DoorLimits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_come_too_slowly_end_the_connection() {
    let served = served(quick()).await;
    let begun = std::time::Instant::now();
    let mut stream = served.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    // A byte now and then does not make the time longer.
    let mut closed = false;
    for _ in 0..200 {
        let mut some = [0; 64];
        match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut some)).await {
            Err(_) => drop(stream.write_all(b"x").await),
            Ok(read) => {
                assert_eq!(read.unwrap_or(0), 0, "no answer");
                closed = true;
                break;
            }
        }
    }
    assert!(closed && begun.elapsed() >= quick().header_timeout, "closed: {closed}, after {:?}", begun.elapsed());
    assert_eq!(status(&served.ask("GET /healthz", "", "").await), "200", "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_is_asked_is_closed() {
    let served = served(quick()).await;
    assert_eq!(rest(&mut served.connect().await).await, "", "before the first request");
    let mut stream = served.connect().await;
    let begun = std::time::Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    until(&mut stream, "\"ok\"}").await;
    assert_eq!(rest(&mut stream).await, "", "and after one");
    assert!(begun.elapsed() >= quick().idle_timeout, "kept for a while: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_take_longer_than_a_client_may_idle() {
    let served = served(quick()).await;
    let mut stream = served.connect().await;
    stream.write_all(request("GET /test/hold", "", "").as_bytes()).await.unwrap();
    in_time(served.seen.notified()).await;
    tokio::time::sleep(quick().idle_timeout * 2).await;
    served.go.add_permits(1);
    assert!(rest(&mut stream).await.ends_with("held"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_an_address_are_counted() {
    let served = served(DoorLimits { max_connections_per_address: 2, ..DoorLimits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        stream.write_all(request("GET /test/hold", "", "").as_bytes()).await.unwrap();
        in_time(served.seen.notified()).await;
        held.push(stream);
    }
    let answer = rest(&mut served.connect().await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{answer}");
    served.go.add_permits(2);
    for stream in &mut held {
        assert!(rest(stream).await.ends_with("held"));
    }
    let free = async { while status(&served.ask("GET /healthz", "", "").await) != "200" {} };
    in_time(free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_answered_ends_when_the_server_ends() {
    let served = served(DoorLimits::default()).await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    until(&mut idle, "\"ok\"}").await;
    let mut asking = served.connect().await;
    asking.write_all(b"GET /test/hold HTTP/1.1\r\nHost: localhost\r\nx-ms-apikey: bj_dev_0123456789abcdef\r\n\r\n").await.unwrap();
    in_time(served.seen.notified()).await;
    served.stop.cancel();
    assert_eq!(rest(&mut idle).await, "", "who asks nothing is sent away");
    let refused = async {
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    in_time(refused).await;
    served.go.add_permits(1);
    let answer = rest(&mut asking).await;
    assert!(status(&answer) == "200" && answer.ends_with("held"), "{answer}");
    let mut served = served;
    in_time(&mut served.serving).await.unwrap();
}
