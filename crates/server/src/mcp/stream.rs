//! Answers of `rmcp`: as event streams where there is something to be told before the answer, else as plain JSON, which every client takes and which
//! no client bounds.

use axum::body::{Body, Bytes};
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

/// An answer.
pub(super) enum Answer {
    /// Whole, as it is.
    Whole(Response),
    /// A stream of messages, of which the answer will be the last.
    Stream(Stream),
}

/// A stream of which a part has been read.
pub(super) struct Stream {
    parts: Parts,
    read: Vec<Bytes>,
    body: Body,
}

/// What an answer is known by.
#[derive(Deserialize)]
struct Known<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Looks at what comes first: where it is the answer already, nothing is left to be streamed.
pub(super) async fn answer(response: Response) -> Answer {
    let is_stream = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return Answer::Whole(response);
    }
    let (parts, body) = response.into_parts();
    let mut stream = Stream { parts, read: Vec::new(), body };
    // Comments say nothing.
    while let Some(frame) = stream.next().await {
        if let Some(text) = data(&frame) {
            if is_answer(&text) {
                return Answer::Whole(stream.whole(text));
            }
            stream.read.push(frame);
            break;
        }
        let is_comment = frame.starts_with(b":");
        stream.read.push(frame);
        if !is_comment {
            break;
        }
    }
    Answer::Stream(stream)
}

/// An answer as the only event of a stream, for who takes nothing else.
pub(super) async fn event(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if !parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return Response::from_parts(parts, body);
    }
    let Ok(whole) = body.collect().await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from([b"data: ", whole.to_bytes().as_ref(), b"\n\n"].concat()))
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.body.frame().await?.ok()?.into_data() {
                Ok(data) if !data.is_empty() => return Some(data),
                _ => {}
            }
        }
    }

    /// As it came.
    pub(super) fn into_response(self) -> Response {
        let read = futures_util::stream::iter(self.read.into_iter().map(Ok::<_, axum::Error>));
        let rest = self.body.into_data_stream();
        Response::from_parts(self.parts, Body::from_stream(futures_util::StreamExt::chain(read, rest)))
    }

    /// The answer alone.
    pub(super) async fn collect(mut self) -> Response {
        let mut read = std::mem::take(&mut self.read).into_iter();
        loop {
            let frame = match read.next() {
                Some(frame) => Some(frame),
                None => self.next().await,
            };
            let Some(frame) = frame else { break };
            if let Some(text) = data(&frame).filter(|text| is_answer(text)) {
                return self.whole(text);
            }
        }
        let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32800, "message": "the request was given up, and gets no answer"}});
        (StatusCode::OK, axum::Json(body)).into_response()
    }

    fn whole(self, text: String) -> Response {
        let mut parts = self.parts;
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Response::from_parts(parts, Body::from(text))
    }
}

/// The data of an event, of which `rmcp` sends one in a piece.
fn data(frame: &[u8]) -> Option<String> {
    let lines = frame.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    let text = lines.map(|line| String::from_utf8_lossy(line.strip_prefix(b" ").unwrap_or(line)).into_owned()).collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

fn is_answer(text: &str) -> bool {
    serde_json::from_str::<Known>(text).is_ok_and(|known| known.id.is_some() && (known.result.is_some() || known.error.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(events: &'static [&'static str]) -> Response {
        let stream = futures_util::stream::iter(events.iter().map(|event| Ok::<_, std::convert::Infallible>(Bytes::from_static(event.as_bytes()))));
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    const TOLD: &str = "id: 1/1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";

    #[tokio::test]
    async fn an_answer_that_comes_first_is_plain_json() {
        let Answer::Whole(response) = answer(events(&[": keep-alive\n\n", ANSWER])).await else { panic!("a stream") };
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(text(response).await, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }

    #[tokio::test]
    async fn a_stream_stays_one_or_is_collected() {
        let Answer::Stream(stream) = answer(events(&[TOLD, ANSWER])).await else { panic!("no stream") };
        assert_eq!(text(stream.into_response()).await, [TOLD, ANSWER].concat());
        let Answer::Stream(stream) = answer(events(&["id: 0/1\nretry: 2000\ndata:\n\n", TOLD, ANSWER])).await else { panic!("no stream") };
        assert_eq!(text(stream.collect().await).await, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        let Answer::Stream(stream) = answer(events(&[TOLD])).await else { panic!("no stream") };
        assert!(text(stream.collect().await).await.contains("given up"));
    }
}
