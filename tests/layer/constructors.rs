//! `Singleflight::{new, layer}`, and the name of a layer.

use tower::{Layer, ServiceExt};
use tower_singleflight::{Role, Singleflight, SingleflightLayer};

use crate::support::{Origin, all, ask, assert_idle, get, roles};

#[tokio::test]
async fn a_service_made_without_a_layer_shares_with_its_clones_and_nothing_else() {
    let origin = Origin::page();
    let (one, two) = (
        Singleflight::new(origin.clone()),
        Singleflight::new(origin.clone()),
    );
    let callers = vec![
        ask(&one, get("/")),
        ask(&one.clone(), get("/")),
        ask(&two, get("/")),
    ];
    origin.open();
    assert_eq!(
        roles(&all(callers).await),
        [Role::Leader, Role::Follower, Role::Leader]
    );
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn the_layer_of_the_service_is_a_new_one_with_the_default_key() {
    let layer: SingleflightLayer = Singleflight::layer();
    let handle = layer.handle();
    let origin = Origin::page();
    origin.open();
    let response = layer.layer(origin).oneshot(get("/")).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&Role::Leader));
    assert_eq!(handle.stats().led, 1);
    assert_idle(&handle);
}

#[test]
fn a_name_is_of_the_layer_all_its_clones_and_its_handle() {
    let layer = SingleflightLayer::new();
    let clone = layer.clone().max_waiters(2);
    let handle = layer.handle();
    let named = layer.name(String::from("reports"));
    for shown in [
        format!("{named:?}"),
        format!("{clone:?}"),
        format!("{handle:?}"),
    ] {
        assert!(shown.contains("name: Some(\"reports\")"), "{shown}");
    }
}

#[test]
#[should_panic(expected = "is named \"reports\"")]
fn layers_that_share_flights_have_one_name() {
    let layer = SingleflightLayer::new();
    let clone = layer.clone();
    drop((layer.name("reports"), clone.name("avatars")));
}
