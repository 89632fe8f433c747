//! Callers who leave.

use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;

use crate::{Fleet, LONG, ms, one_at_a_time};

#[tokio::test]
async fn a_call_goes_on_for_followers_elsewhere_and_ends_with_the_last() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(2, &Settings::new(&server.url())).await;
    let [leader, follower] = &fleet.replicas[..] else {
        unreachable!()
    };
    for all_leave in [false, true] {
        let key = format!("leave{all_leave}");
        let before = fleet.calls();
        let leading = leader.ask(&key, 3, ms(1000), 100).await;
        fleet.calls_reach(before + 1).await;
        let following = follower.ask(&key, 3, ms(1000), 100).await;
        sleep(ms(150)).await;
        leader.leave(leading).await;
        sleep(ms(100)).await;
        if all_leave {
            follower.leave(following).await;
            sleep(ms(100)).await;
            assert_eq!(leader.lines(&format!("cancelled {key}")).len(), 1);
            assert_eq!(leader.stats().await[8], 0);
        } else {
            let got = follower.got(following, LONG).await;
            assert_eq!(Fleet::made(&got), 1);
            assert!(!got[0].led);
        }
        assert_eq!(fleet.calls(), before + 1);
        server.is_empty_within(ms(500)).await;
    }
}
