//! Several upstreams.

use super::support::*;

/// Three origins, the proxy before them, and a world whose origin is none of them.
async fn three() -> (Vec<World>, World) {
    let mut origins = Vec::new();
    for _ in 0..3 {
        origins.push(World::new(&[]).await);
    }
    let urls: Vec<_> = origins
        .iter()
        .map(|world| format!("http://{}", world.origin))
        .collect();
    let others = ["--upstream", &urls[1], "--upstream", &urls[2]];
    let world = World::before_url(&urls[0], origins[0].origin, &others).await;
    (origins, world)
}

#[tokio::test]
async fn a_uri_has_its_upstream_whatever_the_order_in_which_they_are_named() {
    let (origins, world) = three().await;
    let urls: Vec<_> = origins
        .iter()
        .map(|world| format!("http://{}", world.origin))
        .collect();
    let others = ["--upstream", &urls[0], "--upstream", &urls[1]];
    let other = World::before_url(&urls[2], origins[0].origin, &others).await;
    let calls = || origins.iter().map(World::calls).collect::<Vec<_>>();
    let mut owners = std::collections::HashSet::new();
    for n in 0..30 {
        let before = calls();
        for proxy in [&world, &other, &world] {
            let (status, _) = proxy.get(&format!("/page?n={n}")).await.unwrap();
            assert_eq!(status, StatusCode::OK);
        }
        let after = calls();
        let owner = (0..3).find(|&at| after[at] == before[at] + 3);
        owners.insert(owner.expect("one upstream got all three"));
    }
    assert_eq!(owners.len(), 3);
}

#[tokio::test]
async fn where_an_upstream_can_not_be_reached_the_next_is_asked() {
    let origin = World::new(&[]).await;
    let (_held, address) = nobody();
    let gone = format!("http://{address}");
    let world = World::before_url(
        &gone,
        origin.origin,
        &["--upstream", &format!("http://{}", origin.origin)],
    )
    .await;
    for n in 0..20 {
        let (status, _) = world.get(&format!("/{n}")).await.unwrap();
        assert_eq!(status, StatusCode::OK);
    }
    let stats = world.stats().await;
    assert_eq!(stats["upstream_failures"], 0);
    let failed = |at: usize| stats["upstreams"][at]["failed_in_a_row"].as_u64().unwrap();
    assert!(failed(0) > 0, "{stats}");
    assert_eq!(failed(1), 0, "{stats}");
    // It is left alone for a while.
    assert!(failed(0) < 5, "{stats}");
}
