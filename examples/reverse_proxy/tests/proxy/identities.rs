//! Whose answer it is: client addresses, and connections that stand for a user.

use super::support::*;

const GET: &str = "GET /gated/vary/FIELD HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn an_answer_that_varies_by_the_clients_address_is_not_given_to_another() {
    for field in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let world = World::new(&[]).await;
        let request = GET.replace("FIELD", field);
        let (to, again) = (world.proxy, request.clone());
        let ann = tokio::spawn(async move { send_from("127.0.0.1", to, &again).await });
        world.until_called(1).await;
        let bob = tokio::spawn(async move { send_from("127.0.0.2", to, &request).await });
        world.until_stats("joined", 1).await;
        world.gate.add_permits(2);
        let (ann, bob) = (ann.await.unwrap(), bob.await.unwrap());
        let own = |body: &str, address: &str| {
            body.lines()
                .find(|line| line.starts_with(&format!("{field}: ")))
                .is_some_and(|line| line.contains(address))
        };
        assert!(own(&ann, "127.0.0.1"), "{field}: {ann}");
        assert!(own(&bob, "127.0.0.2"), "{field}: {bob}");
        assert_eq!(world.calls(), 2, "{field}");
        world.until_stats("in_flight", 0).await;
    }
}

#[tokio::test]
async fn clients_of_different_addresses_share_an_answer_that_does_not_vary() {
    let world = World::new(&[]).await;
    let request = GET.replace("FIELD", "accept");
    let (to, again) = (world.proxy, request.clone());
    let ann = tokio::spawn(async move { send_from("127.0.0.1", to, &again).await });
    let bob = tokio::spawn(async move { send_from("127.0.0.2", to, &request).await });
    world.until_stats("waiters", 2).await;
    world.gate.add_permits(1);
    assert!(ann.await.unwrap().starts_with("HTTP/1.1 200 "));
    assert!(bob.await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn what_a_client_claims_of_its_address_does_not_reach_the_origin() {
    let world = World::new(&[]).await;
    let response = world
        .raw(
            "GET / HTTP/1.1\r\nHost: shop.example:81\r\nConnection: close\r\nX-Real-IP: 192.0.2.7\r\n\
             Forwarded: for=192.0.2.7;host=evil.example;proto=https\r\nForwarded: for=x\r\n\r\n",
        )
        .await;
    let lines: Vec<_> = response
        .lines()
        .filter(|line| line.starts_with("forwarded: ") || line.starts_with("x-real-ip: "))
        .collect();
    assert_eq!(
        lines,
        [
            "x-real-ip: 127.0.0.1",
            "forwarded: for=127.0.0.1;host=\"shop.example:81\";proto=http"
        ]
    );
}

#[tokio::test]
async fn a_client_can_not_have_its_address_taken_out_as_a_field_of_its_connection() {
    let world = World::new(&[]).await;
    let response = world
        .raw(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto\r\n\
             Connection: X-Real-IP, forwarded, host, via, x-mine\r\nX-Mine: 1\r\n\r\n",
        )
        .await;
    for line in [
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: h",
        "x-forwarded-proto: http",
        "x-real-ip: 127.0.0.1",
        "forwarded: for=127.0.0.1;host=\"h\";proto=http",
        "via: 1.1 singleflight",
    ] {
        assert!(
            response.lines().any(|found| found == line),
            "{line}: {response}"
        );
    }
    assert!(!response.contains("x-mine"), "{response}");
}

/// Asks with `authorization` over a connection of the client's that stays open.
async fn ask(stream: &mut TcpStream, authorization: &str) -> String {
    let request = format!("GET /page HTTP/1.1\r\nHost: h\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    head_and_body(stream).await.1
}

#[tokio::test]
async fn a_connection_that_stands_for_a_user_is_no_other_clients() {
    for scheme in ["NTLM", "Negotiate", "negotiate"] {
        // It knows a user by the connection, as NTLM does: the third request on it has no credentials.
        let origin = Script::new(&[
            &[
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM c2F5\r\nContent-Length: 4\r\n\r\nsay?",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann",
            ],
            &["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nnobody"],
        ])
        .await;
        let world = World::before(origin.address, &[]).await;
        let mut ann = TcpStream::connect(world.proxy).await.unwrap();
        let credentials = |token: &str| format!("Authorization: {scheme} {token}\r\n");
        assert_eq!(ask(&mut ann, &credentials("aGk=")).await, "say?");
        assert_eq!(ask(&mut ann, &credentials("bWU=")).await, "ann");
        assert_eq!(ask(&mut ann, "").await, "ann");
        let mut bob = TcpStream::connect(world.proxy).await.unwrap();
        assert_eq!(ask(&mut bob, "").await, "nobody", "{scheme}");
        assert_eq!(ask(&mut ann, "").await, "ann");
        assert_eq!(origin.connections(), [0, 0, 0, 1, 0], "{scheme}");
        assert_eq!(world.stats().await["led"], 1, "Bob's alone");
    }
}

#[tokio::test]
async fn streams_of_one_http_2_connection_do_not_share_a_connection_that_stands_for_a_user() {
    let origin = Script::new(&[
        &[
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann",
        ],
        &["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nnobody"],
    ])
    .await;
    let world = World::before(origin.address, &[]).await;
    let client = h2c();
    for (authorization, expected) in [(Some("Negotiate bWU="), "ann"), (None, "nobody")] {
        let mut request = Request::get(format!("http://{}/page", world.proxy));
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::default()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(text(response).await.1, expected);
    }
}
