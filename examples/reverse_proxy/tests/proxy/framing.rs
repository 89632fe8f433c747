//! What becomes of an upstream's framing: the next response on a client's connection is the next response.

use std::sync::Arc;

use hyper_util::rt::TokioIo;

use super::support::*;

const BODY: &str = "helloHTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfrom nowhere";

/// A proxy before an upstream that answers each request with `answer`, and `/after` plainly.
async fn before(answer: String) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::before(listener.local_addr().unwrap(), &[]).await;
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                let plain =
                    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nafter";
                let is_after = head.starts_with("get /after ");
                let answer = if is_after { plain } else { &answer };
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    world
}

/// Asks for a page and then, on the same connection, for another.
async fn ask(world: &World) -> (http::response::Parts, String) {
    let stream = TcpStream::connect(world.proxy).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut responses = Vec::new();
    for path in ["/page", "/after"] {
        let request = Request::get(path).header(header::HOST, "a");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        sender.ready().await.unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        responses.push((parts, String::from_utf8(body.to_vec()).unwrap()));
    }
    assert_eq!(responses.pop().unwrap().1, "after");
    responses.pop().unwrap()
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_does_not_reach_the_client() {
    for lengths in [
        "",
        "content-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
    ] {
        let world = before(format!(
            "HTTP/1.1 200 OK\r\n{lengths}transfer-encoding: chunked\r\n\r\n{:x}\r\n{BODY}\r\n0\r\n\r\n",
            BODY.len()
        ))
        .await;
        let (page, body) = ask(&world).await;
        assert_eq!((page.status, &*body), (StatusCode::OK, BODY));
        assert!(!page.headers.contains_key(header::CONTENT_LENGTH));
    }
}

#[tokio::test]
async fn two_different_lengths_are_a_502() {
    for lengths in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
    ] {
        let world = before(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n{BODY}")).await;
        assert_eq!(ask(&world).await.0.status, StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn a_length_that_is_said_twice_reaches_the_client_once() {
    for lengths in [
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5, 5\r\n",
    ] {
        let world = before(format!("HTTP/1.1 200 OK\r\n{lengths}\r\nhello")).await;
        let (page, body) = ask(&world).await;
        let lengths = page.headers.get_all(header::CONTENT_LENGTH);
        assert!(lengths.iter().eq(["5"]), "{lengths:?}");
        assert_eq!(body, "hello");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_nobody_asked_for_is_a_502() {
    for coding in ["gzip", "gzip, chunked"] {
        let head =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\nconnection: close\r\n\r\n");
        let world = before(head + "5\r\nbytes\r\n0\r\n\r\n").await;
        assert_eq!(ask(&world).await.0.status, StatusCode::BAD_GATEWAY);
    }
}
