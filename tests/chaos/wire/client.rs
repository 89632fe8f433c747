//! What a client asks for on one connection, and what it reads there.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::yield_now};

use super::{
    case::{Case, Client, Leaves, Speaks},
    check::Seen,
};
use crate::support::wire::{Broken, Connection, Fields, Framing, Message};

/// What a client sees that does not hang up.
pub(super) async fn talk(
    address: SocketAddr,
    case: &Case,
    client: &Client,
    path: &str,
) -> Option<Seen> {
    match client.speaks {
        Speaks::Http2 => talk_http2(address, case, client, path).await,
        Speaks::Http10 | Speaks::Http11 => talk_http1(address, case, client, path).await,
    }
}

async fn turns(turns: u64) {
    for _ in 0..turns {
        yield_now().await;
    }
}

/// Whether it is the answer to another request, in full.
fn is_other(message: &Message, path: &str) -> bool {
    message.is_whole && message.body == path.as_bytes()
}

// ===== HTTP/1 =====

async fn talk_http1(address: SocketAddr, case: &Case, client: &Client, path: &str) -> Option<Seen> {
    let is_old = client.speaks == Speaks::Http10;
    let version = if is_old { "1.0" } else { "1.1" };
    let other = |name: &str| format!("GET /after/{name} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut connection = Connection::open(address).await;
    connection.set_pace(client.pace);
    let mut others = Vec::new();
    if client.asks_before {
        connection.send(other("1").as_bytes()).await;
        others.push((connection.receive(false).await, "/after/1"));
    }
    let ask = format!(
        "{} {path} HTTP/{version}\r\nhost: a\r\n{}\r\n",
        case.method, client.more
    );
    connection.send(ask.as_bytes()).await;
    match client.leaves {
        Some(Leaves::Turns(count)) => {
            turns(count).await;
            return None;
        }
        Some(Leaves::Bytes(bytes)) => {
            connection.peek(bytes).await;
            return None;
        }
        None => {}
    }
    let is_head = case.method == "HEAD";
    // To one that is about to be closed nothing is sent: a reset would cost what is on the way.
    let may_pipeline = client.pipelines && !is_old;
    let pipelines = may_pipeline && connection.peek_goes_on(is_head).await;
    if pipelines {
        connection.send(other("2").as_bytes()).await;
    }
    let answer = connection.receive(is_head).await;
    // That an origin speaks HTTP/1.0 keeps hyper's server from nothing.
    let goes_on = |answer: &Message| !answer.closes() && (!is_old || answer.says("keep-alive"));
    if answer.as_ref().is_ok_and(goes_on) {
        if !pipelines {
            connection.send(other("2").as_bytes()).await;
        }
        others.push((connection.receive(false).await, "/after/2"));
    }
    if answer.as_ref().is_ok_and(Message::closes) {
        connection.peek(usize::MAX).await;
    }
    let is_in_step = |(message, path): &(Result<Message, Broken>, &str)| match message {
        Ok(message) => is_other(message, path),
        // To a client of HTTP/1.0 hyper passes on an origin's `keep-alive`, and closes all the same.
        Err(broken) => is_old && *path == "/after/2" && *broken == Broken::Closed(0),
    };
    let is_in_step = others.iter().all(is_in_step) && connection.is_in_step();
    Some(Seen {
        answer,
        others: others.into_iter().map(|(message, _)| message).collect(),
        is_in_step,
    })
}

// ===== HTTP/2 =====

async fn talk_http2(address: SocketAddr, case: &Case, client: &Client, path: &str) -> Option<Seen> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = |method: &str, path: &str, more: &str| {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://a{path}"));
        // The rest is for HTTP/1 alone.
        for name in ["te: trailers", "cache-control: no-store"] {
            if more.contains(name) {
                let (name, value) = name.split_once(": ").expect("a field");
                request = request.header(name, value);
            }
        }
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let mut others = Vec::new();
    if client.asks_before {
        let call = sender.send_request(request("GET", "/after/1", ""));
        others.push((read(call.await, false, client.pace).await, "/after/1"));
    }
    let call = sender.send_request(request(case.method, path, &client.more));
    match client.leaves {
        Some(Leaves::Turns(count)) => {
            tokio::select! {
                biased;
                _ = call => {}
                () = turns(count) => {}
            }
            return None;
        }
        Some(Leaves::Bytes(_)) => {
            drop(call.await);
            return None;
        }
        None => {}
    }
    let answer = read(call.await, case.method == "HEAD", client.pace).await;
    // Whatever became of that stream, the connection is there for another.
    let call = sender.send_request(request("GET", "/after/2", ""));
    others.push((read(call.await, false, client.pace).await, "/after/2"));
    let is_in_step = |(message, path): &(Result<Message, Broken>, &str)| {
        message
            .as_ref()
            .is_ok_and(|message| is_other(message, path))
    };
    let is_in_step = others.iter().all(is_in_step);
    Some(Seen {
        answer,
        others: others.into_iter().map(|(message, _)| message).collect(),
        is_in_step,
    })
}

/// A response on HTTP/2 as one on HTTP/1.1 would have been.
async fn read(
    response: hyper::Result<Response<Incoming>>,
    is_head: bool,
    pace: u64,
) -> Result<Message, Broken> {
    let Ok(response) = response else {
        return Err(Broken::Closed(0));
    };
    let (head, mut body) = response.into_parts();
    let fields = |map: &HeaderMap| -> Fields {
        map.iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect()
    };
    assert_eq!(head.version, Version::HTTP_2);
    let mut message = Message {
        version: "HTTP/2.0".to_owned(),
        status: head.status.as_u16(),
        fields: fields(&head.headers),
        framing: if is_head || [204, 304].contains(&head.status.as_u16()) {
            Framing::Absent
        } else {
            Framing::Frames
        },
        body: Vec::new(),
        trailers: Vec::new(),
        is_whole: true,
    };
    while let Some(frame) = body.frame().await {
        turns(pace).await;
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => message.body.extend_from_slice(&data),
            Ok(Err(frame)) => {
                let trailers = frame.into_trailers().expect("data or trailers");
                message.trailers = fields(&trailers);
            }
            // A connection that has failed would say so for ever.
            Err(_) => {
                message.is_whole = false;
                break;
            }
        }
    }
    Ok(message)
}
