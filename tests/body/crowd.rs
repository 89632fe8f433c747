//! Two hundred followers over real sockets, half of whom misbehave.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, response::Response, routing::get};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::Semaphore;
use tower_singleflight::SingleflightLayer;

use crate::support::{
    Rng, is_idle,
    sockets::{Client, serve, until},
};

const FOLLOWERS: usize = 200;
const FRAMES: usize = 384;
const FRAME: usize = 16 << 10;

/// `SEED=.. cargo test --test body crowd` repeats a run.
fn random() -> Rng {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(()),
    };
    println!("SEED={seed}");
    Rng::new(seed)
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Reads,
    /// Stops reading after so many bytes, and stays connected.
    Stops(usize),
    /// Disconnects after so many bytes; at 0 before the head, once all have joined.
    Disconnects(usize),
}

fn page() -> Vec<Bytes> {
    let frame = |index: usize| -> Bytes {
        let bytes = (0..FRAME).map(|byte| (byte * 31 + index * 7) as u8);
        bytes.collect()
    };
    (0..FRAMES).map(frame).collect()
}

/// What is left of a client, to be kept until the end.
async fn behave(
    mut client: Client,
    manner: Manner,
    whole: Arc<[u8]>,
    joined: impl Fn() -> usize,
) -> Option<impl Sized> {
    if manner == Manner::Disconnects(0) {
        tokio::select! {
            _ = client.get("/") => unreachable!("the gate is shut until it has gone"),
            () = until(|| joined() == FOLLOWERS) => {}
        }
        return None;
    }
    let response = client.get("/").await.unwrap();
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(whole[read..].starts_with(&data));
        read += data.len();
        match manner {
            Manner::Stops(after) if read >= after => return Some((client, body)),
            Manner::Disconnects(after) if read >= after => return None,
            _ => {}
        }
    }
    assert_eq!(read, whole.len());
    None
}

async fn crowd(leader: Manner, known: bool, random: &mut Rng) {
    let pages = page();
    let whole: Arc<[u8]> = pages.concat().into();
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::new().max_body(8 << 20);
    let handle = layer.handle();
    let handler = {
        let (calls, gate, whole) = (calls.clone(), gate.clone(), whole.len());
        move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            let frames = futures_util::stream::unfold(pages.into_iter(), |mut pages| async {
                tokio::task::yield_now().await;
                Some((Ok::<_, Infallible>(Frame::data(pages.next()?)), pages))
            });
            let mut response = Response::builder();
            if known {
                response = response.header("content-length", whole);
            }
            response.body(Body::new(StreamBody::new(frames))).unwrap()
        }
    };
    let app = Router::new().route("/", get(handler)).layer(layer);
    let address = serve(app).await;

    let mut manners: Vec<_> = (0..FOLLOWERS)
        .map(|index| {
            let point = random.index(FRAMES * FRAME);
            match index {
                0..50 => Manner::Stops(1 + point),
                50..60 => Manner::Disconnects(0),
                60..100 => Manner::Disconnects(1 + point),
                _ => Manner::Reads,
            }
        })
        .collect();
    for index in (1..manners.len()).rev() {
        manners.swap(index, random.index(index + 1));
    }
    let client = Client::connect(address).await;
    let joined = {
        let handle = handle.clone();
        move || handle.stats().joined as usize
    };
    let leading = tokio::spawn(behave(client, leader, whole.clone(), joined.clone()));
    until(|| calls.load(Ordering::SeqCst) == 1).await;
    let mut clients = Vec::new();
    for manner in manners {
        let client = Client::connect(address).await;
        let behaves = behave(client, manner, whole.clone(), joined.clone());
        clients.push(tokio::spawn(behaves));
    }
    // All are there, and the server has noticed who left before the head.
    until(|| joined() == FOLLOWERS && handle.stats().waiters == 1 + FOLLOWERS - 10).await;
    gate.add_permits(1);
    let mut kept = Vec::new();
    for client in clients {
        kept.push(client.await.unwrap());
    }
    kept.push(leading.await.unwrap());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!((handle.in_flight(), handle.stats().forwarded), (0, 0));
    drop(kept);
    // Until the server has noticed. Who leaves is counted out first, and gives its bytes back then.
    until(|| is_idle(&handle)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_stops_reading_or_disconnects_harms_none_of_two_hundred() {
    let mut random = random();
    let half = FRAMES * FRAME / 2;
    for (leader, known) in [
        (Manner::Reads, true),
        (Manner::Stops(half), true),
        (Manner::Disconnects(half), true),
        (Manner::Reads, false),
        (Manner::Disconnects(half), false),
    ] {
        println!("{leader:?}, known: {known}");
        crowd(leader, known, &mut random).await;
    }
}
