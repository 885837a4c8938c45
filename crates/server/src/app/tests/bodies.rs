//! Bodies that are too long, or do not come.

use super::*;

fn small() -> DoorLimits {
    DoorLimits { body_bytes: 1000, upload_bytes: 100_000, ..DoorLimits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_a_limit_and_uploads_a_larger_one() {
    let served = served(small()).await;
    let post = async |path: &str, size: usize| {
        let answer = served.ask(&format!("POST {path}"), "", &"x".repeat(size)).await;
        (status(&answer).to_owned(), answer)
    };
    assert_eq!(post("/test/echo", 1000).await.0, "200");
    let (status, answer) = post("/test/echo", 1001).await;
    assert!(status == "413" && answer.contains(r#""code":"too_large""#) && answer.contains("1000 bytes"), "{answer}");
    let (status, answer) = post("/test/upload", 100_000).await;
    assert!(status == "200" && answer.ends_with("100000"), "{answer}");
    assert_eq!(post("/test/upload", 100_001).await.0, "413");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_counted_as_it_comes() {
    let served = served(small()).await;
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let two = request("POST /test/echo", "Transfer-Encoding: chunked\r\n", "") + &chunk.repeat(2) + "0\r\n\r\n";
    let answer = served.talk(&two).await;
    assert!(status(&answer) == "200" && answer.ends_with("1000"), "{answer}");
    let three = request("POST /test/echo", "Transfer-Encoding: chunked\r\n", "") + &chunk.repeat(3) + "0\r\n\r\n";
    assert_eq!(status(&served.talk(&three).await), "413");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_still_sending_gets_to_see_the_answer() {
    let served = served(small()).await;
    let much = "x".repeat(8 << 20);
    let answer = served.ask("POST /test/echo", "", &much).await;
    assert_eq!(status(&answer), "413", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_sending_is_answered() {
    let served = served(small()).await;
    let mut stream = served.connect().await;
    stream.write_all(request("POST /test/echo", "Expect: 100-continue\r\nContent-Length: 2000\r\n", "").as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "without `100 Continue`: {answer}");
    let mut stream = served.connect().await;
    stream.write_all(request("POST /test/echo", "Expect: 100-continue\r\nContent-Length: 5\r\n", "").as_bytes()).await.unwrap();
    until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"12345").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(status(&answer) == "200" && answer.ends_with('5'), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_given_up() {
    let served = served(DoorLimits { body_timeout: Duration::from_millis(200), ..DoorLimits::default() }).await;
    let answer = served.talk(request("POST /test/echo", "Content-Length: 10\r\n", "") + "12345").await;
    assert!(status(&answer) == "408" && answer.contains("did not come in time") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // One that comes slowly, but comes, is not.
    let mut stream = served.connect().await;
    stream.write_all(request("POST /test/echo", "Content-Length: 8\r\n", "").as_bytes()).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(b"x").await.unwrap();
    }
    let answer = rest(&mut stream).await;
    assert!(status(&answer) == "200" && answer.ends_with('8'), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_is_given_up() {
    let served = served(DoorLimits { body_timeout: Duration::from_millis(200), ..DoorLimits::default() }).await;
    let mut stream = served.connect().await;
    stream.write_all(request("GET /test/endless", "", "").as_bytes()).await.unwrap();
    until(&mut stream, "xxxx").await;
    // Not a byte more is read, and the answer is dropped.
    in_time(served.seen.notified()).await;
}
