//! Several proxies that share a store.

use clap::Parser;
use reverse_proxy::{Cli, Proxy};

/// The words of a proxy that can't start, with an address of a store that has a password.
async fn words(options: &[&str]) -> String {
    let fixed = [
        "proxy",
        "--upstream",
        "http://127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
    ];
    let cli = Cli::parse_from(fixed.iter().chain(options));
    assert!(!format!("{cli:?}").contains("hunter2"), "{cli:?}");
    let words = Proxy::bind(cli).await.unwrap_err().to_string();
    assert!(
        !words.contains("hunter2") && words.lines().count() == 1,
        "{words}"
    );
    words
}

#[cfg(not(feature = "replicas"))]
#[tokio::test]
async fn a_proxy_that_was_built_without_replicas_says_how_to_build_it() {
    let url = "redis://:hunter2@127.0.0.1";
    let options = [
        "--replicas",
        url,
        "--namespace",
        "tests",
        "--secret-file",
        "/none",
    ];
    let words = words(&options).await;
    assert!(words.starts_with("--replicas: "), "{words}");
    assert!(words.contains("--features replicas"), "{words}");
}

#[test]
fn a_store_needs_a_namespace_and_a_secret_and_they_need_a_store() {
    let fixed = ["proxy", "--upstream", "http://127.0.0.1:1"];
    for (options, expected) in [
        (
            &["--replicas", "redis://a", "--namespace", "n"][..],
            "--secret-file",
        ),
        (
            &["--replicas", "redis://a", "--secret-file", "/f"],
            "--namespace",
        ),
        (&["--namespace", "n"], "--replicas"),
        (&["--patience", "1s"], "--replicas"),
    ] {
        let error = Cli::try_parse_from(fixed.iter().chain(options)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[cfg(feature = "replicas")]
mod with_the_feature {
    use super::{super::support::*, *};

    const REQUEST: &str = "GET /gated HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

    async fn beside(origin: SocketAddr, options: &[String]) -> World {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        World::before(origin, &options).await
    }

    async fn until_replicas(world: &World, what: impl Fn(&serde_json::Value) -> bool) {
        while !what(&world.stats().await["replicas"]) {
            tokio::task::yield_now().await;
        }
    }

    fn ask(world: &World) -> JoinHandle<String> {
        let to = world.proxy;
        tokio::spawn(async move { send_from("127.0.0.1", to, REQUEST).await })
    }

    #[tokio::test]
    async fn two_proxies_make_one_call() {
        let (store, origin) = (Store::new().await, World::new(&[]).await);
        let options = [
            &store.options[..],
            &["--cache-status".to_owned(), "p".to_owned()],
        ]
        .concat();
        let first = beside(origin.origin, &options).await;
        let second = beside(origin.origin, &options).await;
        for world in [&first, &second] {
            until_replicas(world, |replicas| replicas["is_up"] == true).await;
        }
        let monitor = store.monitor().await;
        let leader = ask(&first);
        origin.until_called(1).await;
        let other = ask(&second);
        monitor.until_a_proxy_joins().await;
        // The leader has been told by then, or will be before an answer of this port.
        first.stats().await;
        origin.gate.add_permits(1);
        assert!(leader.await.unwrap().starts_with("HTTP/1.1 200 "));
        let response = other.await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(response.contains("detail=replica"), "{response}");
        assert_eq!(origin.calls(), 1);

        let stats = (first.stats().await, second.stats().await);
        assert_eq!(stats.0["replicas"]["led"], 1);
        assert_eq!(stats.1["replicas"]["followed"], 1);
        assert!(
            stats.1["replicas"]["round_trip_ms"]
                .as_f64()
                .is_some_and(|ms| ms > 0.0)
        );
        // It was no call of the origin.
        assert_eq!(stats.1["hot"][0]["saved"], 1);
        let (_, metrics) = second.operate(Method::GET, "/metrics").await;
        for line in [
            "singleflight_replicas_followed_total 1",
            "singleflight_replicas_store_up 1",
            "singleflight_replicas_alone_total{reason=\"down\"} 0",
            "# TYPE singleflight_replicas_round_trip gauge",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{metrics}");
        }
        first.until_stats("waiters", 0).await;
        second.until_stats("in_flight", 0).await;
    }

    #[tokio::test]
    async fn a_store_that_is_killed_is_not_missed() {
        let (mut store, origin) = (Store::new().await, World::new(&[]).await);
        let world = beside(origin.origin, &store.options).await;
        until_replicas(&world, |replicas| replicas["is_up"] == true).await;
        store.kill();
        until_replicas(&world, |replicas| replicas["is_up"] == false).await;
        let clients = [ask(&world), ask(&world)];
        world.until_stats("waiters", 2).await;
        origin.gate.add_permits(1);
        for client in clients {
            assert!(client.await.unwrap().starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(origin.calls(), 1);
        let replicas = &world.stats().await["replicas"];
        assert_eq!(
            (&replicas["alone"]["down"], &replicas["led"]),
            (&1.into(), &0.into())
        );
        world.until_stats("in_flight", 0).await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_store_or_the_secret_is_said_in_words() {
        let mut store = Store::new().await;
        let file = store.options[3].clone();
        let short = format!("{file}.short");
        std::fs::write(&short, "password\n").unwrap();
        let url = "redis://:hunter2@127.0.0.1";
        for (url, file, more, expected) in [
            (url, "/none", &[][..], "--secret-file /none: No such file"),
            (url, &*short, &[], "has 8 bytes, and a secret at least 32"),
            (
                "http://:hunter2@a",
                &*file,
                &[],
                "--replicas: the store's address can't be used: ",
            ),
            (
                "redis://:hunter2@a,redis://b",
                &*file,
                &[],
                "several addresses need --store",
            ),
            (
                "127.0.0.1:6379",
                &*file,
                &["--store", "cluster"],
                "--replicas: ",
            ),
        ] {
            let options = [
                "--replicas",
                url,
                "--namespace",
                "tests",
                "--secret-file",
                file,
            ];
            let options: Vec<_> = options.iter().chain(more).copied().collect();
            let words = words(&options).await;
            assert!(words.contains(expected), "{words}");
        }
        store.kill();
    }
}
