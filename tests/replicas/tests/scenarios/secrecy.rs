//! What the store sees, and who may use it.

use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;

use crate::{CALL, Fleet, ms, one_at_a_time};

#[tokio::test]
async fn nothing_that_the_store_shows_says_what_is_asked_or_answered() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let client = redis::Client::open(server.url()).unwrap();
    let monitor = client.get_async_monitor().await.unwrap();
    let shown = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let watching = tokio::spawn(watch(monitor, std::sync::Arc::clone(&shown)));
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    fleet.burst("secret-path", 20, CALL, 100).await;
    // With what a page of 70 kB begins with.
    let got = fleet.burst("secret-path", 20, CALL, 70_000).await;
    sleep(ms(100)).await;
    watching.abort();
    let shown = shown.lock().unwrap();
    assert!(
        shown
            .iter()
            .any(|line| line.to_lowercase().contains("publish")),
        "{} lines",
        shown.len()
    );
    for line in shown.iter() {
        assert!(!line.contains("secret-path"), "{line}");
        assert!(!line.contains(&got[0].call), "{line}");
    }
}

pub(crate) async fn watch(
    monitor: redis::aio::Monitor,
    shown: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) {
    let mut lines = monitor.into_on_message::<String>();
    while let Some(line) = next(&mut lines).await {
        shown.lock().unwrap().push(line);
    }
}

/// The next item of a stream.
async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *stream).poll_next(cx)).await
}

#[tokio::test]
async fn two_namespaces_or_two_secrets_never_meet() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let base = Settings::new(&server.url());
    let other_namespace = Settings {
        namespace: "replicas-tests/2".to_owned(),
        ..base.clone()
    };
    let other_secret = Settings {
        secret: "another secret, of thirty-two bytes and more".to_owned(),
        ..base.clone()
    };
    let mut fleet = Fleet {
        replicas: Vec::new(),
    };
    for settings in [&base, &other_namespace, &other_secret] {
        let one = Fleet::start(1, settings).await;
        fleet.replicas.extend(one.replicas);
    }
    let got = fleet.burst("a", 50, CALL, 100).await;
    assert_eq!(Fleet::made(&got), 3);
}

#[tokio::test]
async fn the_rights_that_the_guide_names_are_enough() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let rights = "on >password resetkeys resetchannels -@all +eval +evalsha +get +set +del +pexpire +publish +subscribe \
                  ~replicas-tests/1:* &replicas-tests/1:*";
    let mut words = vec!["ACL", "SETUSER", "flights"];
    words.extend(rights.split_whitespace());
    server.command(&words).await;
    let url = server
        .url()
        .replace("redis://", "redis://flights:password@");
    let fleet = Fleet::start(4, &Settings::new(&url).patient()).await;
    for len in [100, 100_000] {
        let got = fleet.gated(&[format!("len{len}")], 20, len).await;
        assert_eq!(Fleet::made(&got), 1);
    }
    server.is_empty_within(ms(1000)).await;
}
