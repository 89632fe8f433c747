use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_util::Stream;
use tokio::net::TcpSocket;

use super::*;

/// A channel as a stream of frames.
pub(crate) struct Chunks(pub(crate) mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>);

/// An origin that answers by a script: for each connection the responses to the requests on it, one after the other, and
/// then it closes the connection. An empty response closes it after the request.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<(usize, String)>>>,
}

// ===== impl Chunks =====

impl Stream for Chunks {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

// ===== impl Script =====

impl Script {
    pub(crate) async fn new(connections: &'static [&'static [&'static str]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            for (number, responses) in connections.iter().enumerate() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    for response in *responses {
                        let head = read_head(&mut stream).await;
                        seen.lock().unwrap().push((number, head));
                        stream.write_all(response.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// The number of the connection and the head of each request, in the order in which they came.
    pub(crate) fn heads(&self) -> Vec<(usize, String)> {
        self.heads.lock().unwrap().clone()
    }

    /// The connection on which each request came.
    pub(crate) fn connections(&self) -> Vec<usize> {
        self.heads().into_iter().map(|(number, _)| number).collect()
    }
}

/// An address where nobody listens, nor will as long as the socket is held.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// An origin that accepts one connection, reads one head and sends `response`, then closes. Returns the head.
pub(crate) async fn one_answer(response: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(response.as_bytes()).await.unwrap();
        head
    });
    (address, head)
}

/// Reads a head to its end; gives it in lower case.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            // The other side has gone.
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}
