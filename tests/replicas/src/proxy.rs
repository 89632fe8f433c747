//! A TCP proxy before a server: it delays, swallows and cuts.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, mpsc},
    time::{Instant, sleep, sleep_until},
};

/// Stands between replicas and a server. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Of one direction, in microseconds.
    delay: AtomicU64,
    black_hole: AtomicBool,
    cut: broadcast::Sender<()>,
}

// ===== impl Proxy =====

impl Proxy {
    /// # Panics
    ///
    /// If no port can be listened at.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State {
            delay: AtomicU64::new(0),
            black_hole: AtomicBool::new(false),
            cut: broadcast::channel(1).0,
        });
        tokio::spawn(serve(listener, server, Arc::downgrade(&state)));
        Self { port, state }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Adds so much to each round trip.
    pub fn delay(&self, round_trip: Duration) {
        let one_way = round_trip.as_micros() as u64 / 2;
        self.state.delay.store(one_way, Ordering::SeqCst);
    }

    /// Connections stay open, new ones are accepted, and nothing passes; what was sent meanwhile passes later.
    pub fn black_hole(&self, yes: bool) {
        self.state.black_hole.store(yes, Ordering::SeqCst);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        let _ = self.state.cut.send(());
    }
}

async fn serve(listener: TcpListener, server: u16, state: std::sync::Weak<State>) {
    loop {
        let accepted = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        let Some(state) = state.upgrade() else { return };
        let Ok(Ok((client, _))) = accepted else {
            continue;
        };
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let mut cut = state.cut.subscribe();
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            tokio::select! {
                () = pass(client_in, server_out, &state) => {}
                () = pass(server_in, client_out, &state) => {}
                _ = cut.recv() => {}
            }
        });
    }
}

/// Each piece is written as long after it was read as the delay says; pieces overlap.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            let delay = Duration::from_micros(state.delay.load(Ordering::SeqCst));
            if sender
                .send((Instant::now() + delay, buffer[..len].to_vec()))
                .is_err()
            {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, piece)) = receiver.recv().await {
            sleep_until(at).await;
            while state.black_hole.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(2)).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
