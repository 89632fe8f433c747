//! What one replica forgets.

use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;

use crate::{CALL, Fleet, LONG, ms, one_at_a_time};

#[tokio::test]
async fn what_one_replica_forgets_is_led_anew_at_the_others() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(3, &Settings::new(&server.url())).await;
    let old = fleet.replicas[0].ask("a", 1, ms(1500), 100).await;
    fleet.calls_reach(1).await;
    sleep(ms(100)).await;
    fleet.replicas[1].forget("a").await;
    sleep(ms(100)).await;
    let new = fleet.replicas[2].ask("a", 1, CALL, 100).await;
    let new = fleet.replicas[2].got(new, LONG).await.remove(0);
    assert!(new.led);
    let old = fleet.replicas[0].got(old, LONG).await.remove(0);
    assert_ne!(old.call, new.call);
    assert_eq!(fleet.calls(), 2);
}
