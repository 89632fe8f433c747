//! Many requests of many users at once: nobody gets what was made for somebody else.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use replicas_tests::{Kind, Server, Settings};
use tokio::{task::JoinSet, time::sleep};
use tower_singleflight::Role;

use crate::{
    layer::{Fleet, Takes, at},
    ms, one_at_a_time,
};

const REQUESTS: usize = 100_000;
const CLIENTS: usize = 500;

/// What a response may depend on: all of it is in its body.
fn asker(request: &Request<String>) -> String {
    let field = |name| request.headers().get(name).map_or("-", text);
    let (credential, cookie) = (field("authorization"), field("cookie"));
    let agent = match request.uri().path() {
        "/vary" => field("user-agent"),
        _ => "any",
    };
    format!("{} {credential} {cookie} {agent}", request.uri().path())
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().expect("text")
}

fn says(call: usize, request: &Request<String>) -> Response<Bytes> {
    let mut response = Response::new(format!("{} {call}", asker(request)).into());
    let (name, value) = match request.uri().path() {
        "/public" => ("cache-control", "public, max-age=5"),
        "/private" => ("cache-control", "private"),
        "/cookie" => ("set-cookie", "session=new"),
        "/vary" => ("vary", "user-agent"),
        _ => ("x-plain", "yes"),
    };
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

fn request(mut random: u64) -> Request<String> {
    let mut pick = |of: &'static [&'static str]| {
        let picked = of[random as usize % of.len()];
        random /= of.len() as u64;
        picked
    };
    let paths = &["/plain", "/public", "/vary", "/private", "/cookie"];
    let mut request = at(pick(paths));
    let fields: [(&str, &[&str]); 3] = [
        (
            "authorization",
            &["", "", "Bearer a", "Bearer b", "Basic c"],
        ),
        ("cookie", &["", "", "", "session=a", "session=b"]),
        ("user-agent", &["one", "two"]),
    ];
    for (name, values) in fields {
        let value = pick(values);
        if !value.is_empty() {
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_what_was_made_for_other_credentials() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url()).patient();
    let fleet = Arc::new(Fleet::start(&settings, Takes::Time(ms(20)), says).await);
    let own_calls = Arc::new(Mutex::new(HashSet::new()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (fleet, own_calls) = (Arc::clone(&fleet), Arc::clone(&own_calls));
        clients.spawn(async move {
            let mut random = client as u64;
            let mut roles = [0; 2];
            for _ in 0..REQUESTS / CLIENTS {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let asked = request(random >> 20);
                let asker = asker(&asked);
                let path = asked.uri().path().to_owned();
                let node = &fleet.nodes[(random >> 62) as usize];
                let got = node.ask(asked).await.expect("no panic");
                let body = std::str::from_utf8(&got.body).expect("text");
                let (made_for, call) = body.rsplit_once(' ').expect("as it was made");
                assert_eq!(made_for, asker, "{got:?}");
                if path == "/private" || path == "/cookie" {
                    let is_own = own_calls.lock().expect("no panic").insert(call.to_owned());
                    assert!(is_own, "{got:?}");
                }
                roles[0] += usize::from(got.role == Role::Replica);
                roles[1] += usize::from(got.role == Role::Follower);
                sleep(ms(random >> 61)).await;
            }
            roles
        });
    }
    let roles = clients.join_all().await;
    let [elsewhere, here] = [0, 1].map(|of| roles.iter().map(|roles| roles[of]).sum::<usize>());
    eprintln!(
        "{REQUESTS} requests, {} calls, {here} followed here and {elsewhere} elsewhere",
        fleet.calls()
    );
    assert!(here > REQUESTS / 100 && elsewhere > REQUESTS / 100);
    server.is_empty_within(ms(1000)).await;
    fleet.nothing_is_left();
}
