//! What the store sees, and who meets whom.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;

use super::{Fleet, Takes, at, get, made, short};
use crate::{CALL, ms, one_at_a_time, secrecy::watch};

/// None of these may be seen.
const SECRETS: [&str; 8] = [
    "hidden-path",
    "hidden-query",
    "hidden-host",
    "hidden-credential",
    "hidden-cookie",
    "hidden-tenant",
    "hidden-field",
    "hidden-body",
];

fn request(path: &str) -> Request<String> {
    let mut request = at(path);
    let uri = format!("http://hidden-host{path}?hidden-query=1");
    *request.uri_mut() = uri.parse().expect("a URI");
    let headers = request.headers_mut();
    for (name, value) in [
        ("authorization", "Bearer hidden-credential"),
        ("cookie", "session=hidden-cookie"),
        ("x-tenant", "hidden-tenant"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

/// By path: large, varying, and one client's alone.
fn says(_: usize, request: &Request<String>) -> Response<Bytes> {
    let path = request.uri().path();
    let repeats = if path.ends_with("large") { 20_000 } else { 2 };
    let mut response = Response::new(Bytes::from("hidden-body ".repeat(repeats)));
    let headers = response.headers_mut();
    headers.insert("x-field", HeaderValue::from_static("hidden-field"));
    let public = HeaderValue::from_static("public, max-age=1");
    headers.insert("cache-control", public);
    if path.ends_with("vary") {
        headers.insert("vary", HeaderValue::from_static("user-agent"));
    }
    if path.ends_with("own") {
        let cookie = HeaderValue::from_static("session=hidden-cookie");
        headers.insert("set-cookie", cookie);
    }
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_store_shows_says_what_is_asked_or_answered() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let client = redis::Client::open(server.url()).expect("an address");
    let monitor = client.get_async_monitor().await.expect("a monitor");
    let shown = Arc::new(Mutex::new(Vec::<String>::new()));
    let watching = tokio::spawn(watch(monitor, Arc::clone(&shown)));
    let looking = tokio::spawn({
        let (mut connection, shown) = (server.connect().await, Arc::clone(&shown));
        async move {
            loop {
                let keys: Vec<String> = redis::cmd("KEYS")
                    .arg("*")
                    .query_async(&mut connection)
                    .await
                    .expect("KEYS");
                let keys = keys.into_iter().map(|key| format!("key {key}"));
                shown.lock().expect("no panic").extend(keys);
                sleep(ms(5)).await;
            }
        }
    });
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(CALL / 3), says).await;
    fleet.burst(5, |_| request("/hidden-path/small")).await;
    fleet.burst(5, |_| request("/hidden-path/large")).await;
    fleet.burst(5, |_| request("/hidden-path/own")).await;
    let agents = |caller| {
        let mut request = request("/hidden-path/vary");
        let agent = super::with_agent(caller).headers()["user-agent"].clone();
        request.headers_mut().insert("user-agent", agent);
        request
    };
    fleet.burst(5, agents).await;
    let mut write = request("/hidden-path/small");
    *write.method_mut() = http::Method::POST;
    fleet.nodes[0].ask(write).await.expect("no panic");
    let key = super::key_of(request("/hidden-path/small"));
    fleet.nodes[1].handle.forget(&key);
    fleet.nodes[1].handle.forget_all();
    sleep(ms(50)).await;
    watching.abort();
    looking.abort();

    let shown = shown.lock().expect("no panic");
    // Leases, values, messages, and the keys of both.
    for kind in [
        "\"EVALSHA\"",
        "\"PUBLISH\"",
        "\"SET\"",
        "\"GET\"",
        "\"DEL\"",
        "key replicas-tests/1:f:",
        "key replicas-tests/1:v:",
    ] {
        assert!(
            shown.iter().any(|line| line.contains(kind)),
            "no {kind} in {} lines",
            shown.len()
        );
    }
    for line in shown.iter() {
        let line = line.to_lowercase();
        for secret in SECRETS {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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
    let settings = [&base, &other_namespace, &other_secret].map(Some);
    let fleet = Fleet::of(&settings, Takes::Time(CALL), short);
    fleet.all_up_within(crate::LONG).await;
    let all = fleet.burst(50, get).await;
    assert_eq!((made(&all), fleet.calls()), (3, 3));
    let bodies: BTreeSet<_> = all.chunks(3).map(|three| three[0].call).collect();
    assert_eq!(bodies.len(), 1, "each replica has its own");
    fleet.nothing_is_left();
}
