//! What one replica forgets, or writes.

use http::Request;
use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;
use tower_singleflight::Role;

use super::{Fleet, Takes, get, key_of, short};
use crate::{CALL, ms, one_at_a_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_forgets_or_writes_is_led_anew_elsewhere_within_100_ms() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    for writes in [false, true] {
        let settings = Settings::new(&server.url());
        let fleet = Fleet::start(&settings, Takes::Time(2 * CALL), short).await;
        let [first, second, third, _] = &fleet.nodes[..] else {
            unreachable!()
        };
        if writes {
            let write = Request::post("http://host/page").body(String::new());
            let write = second.ask(write.expect("a request"));
            sleep(CALL).await;
            let old = first.ask(get(0));
            fleet.origin.calls_reach(2).await;
            write.await.expect("no panic");
            sleep(ms(100)).await;
            let new = third.ask(get(0)).await.expect("no panic");
            assert_eq!((new.role, new.call), (Role::Leader, 2));
            assert_eq!(old.await.expect("no panic").call, 1);
        } else {
            let old = first.ask(get(0));
            fleet.origin.calls_reach(1).await;
            second.handle.forget(&key_of(get(0)));
            sleep(ms(100)).await;
            let new = third.ask(get(0)).await.expect("no panic");
            assert_eq!((new.role, new.call), (Role::Leader, 1));
            assert_eq!(old.await.expect("no panic").call, 0);
        }
        server.is_empty_within(ms(1000)).await;
        fleet.nothing_is_left();
    }
}
