//! Options of the layer.

use super::support::*;

const REQUEST: &str =
    "GET /gated HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Nonce: VALUE\r\n\r\n";

#[tokio::test]
async fn a_field_can_be_left_out_of_the_key() {
    for (options, calls) in [(&["--ignore-header", "x-nonce"][..], 1), (&[], 2)] {
        let world = World::new(options).await;
        let clients: Vec<_> = ["1", "2"]
            .map(|nonce| {
                let (to, request) = (world.proxy, REQUEST.replace("VALUE", nonce));
                tokio::spawn(async move { send_from("127.0.0.1", to, &request).await })
            })
            .into();
        world.until_stats("waiters", 2).await;
        world.until_called(calls).await;
        world.gate.add_permits(calls);
        for client in clients {
            assert!(client.await.unwrap().starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(world.calls(), calls);
    }
}

#[tokio::test]
async fn the_number_of_waiters_can_be_limited() {
    let world = World::new(&["--max-waiters", "2"]).await;
    let clients: Vec<_> = (0..4).map(|_| world.get("/gated")).collect();
    world.until_called(3).await;
    world.gate.add_permits(3);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(world.calls(), 3);
    world.until_stats("in_flight", 0).await;
}

#[tokio::test]
async fn without_memory_for_copies_followers_make_their_own_calls() {
    let world = World::new(&["--max-buffered", "0"]).await;
    let clients: Vec<_> = (0..3).map(|_| world.get("/gated")).collect();
    world.until_stats("waiters", 3).await;
    world.gate.add_permits(3);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(world.calls(), 3);
    world.until_stats("in_flight", 0).await;
}
