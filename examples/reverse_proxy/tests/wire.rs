//! What the example `reverse_proxy` makes of an upstream's framing, read from its sockets by the letter of RFC 9112.

#[allow(dead_code, reason = "its server is for services")]
#[path = "../../../tests/wire_support/mod.rs"]
mod wire_support;

use std::net::SocketAddr;

use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use reverse_proxy::{Cli, Proxy};
use wire_support::{Connection, Message};

const BODY: &str = "helloHTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfrom nowhere";

/// A proxy before an upstream that answers each request with `answer`, and `/after` plainly.
async fn proxy(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await?);
                }
                let plain =
                    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nafter";
                let is_after = head.starts_with(b"GET /after ");
                let answer = if is_after { plain } else { &answer };
                socket.write_all(answer.as_bytes()).await
            });
        }
    });
    let options = ["proxy", "--upstream", &upstream, "--listen", "127.0.0.1:0"];
    let proxy = Proxy::bind(Cli::parse_from(options)).await.unwrap();
    let address = proxy.address().unwrap();
    tokio::spawn(proxy.serve(std::future::pending()));
    address
}

/// Asks for a page and then, on the same connection, for another.
async fn ask(address: SocketAddr) -> Message {
    let mut connection = Connection::open(address).await;
    connection
        .send(b"GET /page HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    let page = connection.receive(false).await.expect("a page");
    connection
        .send(b"GET /after HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    let after = connection.receive(false).await.expect("another page");
    assert_eq!(after.body, b"after");
    page
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_does_not_reach_the_client() {
    for lengths in [
        "",
        "content-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
    ] {
        let address = proxy(format!(
            "HTTP/1.1 200 OK\r\n{lengths}transfer-encoding: chunked\r\n\r\n{:x}\r\n{BODY}\r\n0\r\n\r\n",
            BODY.len()
        ))
        .await;
        let page = ask(address).await;
        assert_eq!((page.status, page.body), (200, BODY.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn two_different_lengths_are_a_502() {
    for lengths in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
    ] {
        let address = proxy(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n{BODY}")).await;
        assert_eq!(ask(address).await.status, 502);
    }
}

#[tokio::test]
async fn a_length_that_is_said_twice_reaches_the_client_once() {
    for lengths in [
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5, 5\r\n",
    ] {
        let address = proxy(format!("HTTP/1.1 200 OK\r\n{lengths}\r\nhello")).await;
        let page = ask(address).await;
        assert_eq!((page.length(), &page.body[..]), (Some(5), &b"hello"[..]));
    }
}

#[tokio::test]
async fn a_transfer_coding_that_nobody_asked_for_is_a_502() {
    for coding in ["gzip", "gzip, chunked"] {
        let head =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\nconnection: close\r\n\r\n");
        let address = proxy(head + "5\r\nbytes\r\n0\r\n\r\n").await;
        assert_eq!(ask(address).await.status, 502);
    }
}
