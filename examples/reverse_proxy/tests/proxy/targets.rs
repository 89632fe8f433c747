use super::support::*;

async fn asked(world: &World, head: &str) -> String {
    let response = world
        .raw(&format!("{head}Host: h\r\nConnection: close\r\n\r\n"))
        .await;
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", &response[9..12])
}

#[tokio::test]
async fn no_path_leaves_the_prefix_of_the_upstream() {
    let origin = World::new(&[]).await;
    let world = World::before_url(
        &format!("http://{}/base", origin.origin),
        origin.origin,
        &[],
    )
    .await;
    for path in [
        "/../secret",
        "/a/../../secret",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/a/..%2f..%2fsecret",
        "/..%5csecret",
        "/..;/secret",
        "/..;x=1/secret",
        "//../secret",
        "/./../secret",
        "/a/%2e/../../secret",
        "/..",
    ] {
        let found = asked(&world, &format!("GET {path} HTTP/1.1\r\n")).await;
        assert!(found.starts_with("400 "), "{path}: {found}");
    }
    assert_eq!(origin.calls(), 0);
    for path in ["/a/../b", "/...", "/a..b/..c", "/a?x=/../../b", "/%2e"] {
        let found = asked(&world, &format!("GET {path} HTTP/1.1\r\n")).await;
        let expected = format!("200 GET /base{path}\n");
        assert!(found.starts_with(&expected), "{path}: {found}");
    }
}

#[tokio::test]
async fn without_a_prefix_dot_segments_are_the_origins_affair() {
    let world = World::new(&[]).await;
    let found = asked(&world, "GET /a/../../b HTTP/1.1\r\n").await;
    assert!(found.starts_with("200 GET /a/../../b\n"), "{found}");
}

#[tokio::test]
async fn max_forwards_of_nothing_ends_trace_and_options_here() {
    let world = World::new(&[]).await;
    let found = asked(
        &world,
        "TRACE /a HTTP/1.1\r\nMax-Forwards: 0\r\nX-Mine: 1\r\nCookie: secret\r\n",
    )
    .await;
    assert!(found.starts_with("200 TRACE /a HTTP/1.1\r\n"), "{found}");
    assert!(found.contains("x-mine: 1\r\n"), "{found}");
    assert!(!found.contains("secret"), "{found}");
    let found = asked(&world, "OPTIONS * HTTP/1.1\r\nMax-Forwards: 0\r\n").await;
    assert!(found.starts_with("20"), "{found}");
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn max_forwards_counts_down() {
    let world = World::new(&[]).await;
    for (sent, got) in [
        ("2", Some("1")),
        ("1", Some("0")),
        // No number: as if it were not there.
        ("-1", Some("-1")),
        ("many", Some("many")),
        ("99999999999999999999999", Some("99999999999999999999999")),
    ] {
        let found = asked(
            &world,
            &format!("OPTIONS / HTTP/1.1\r\nMax-Forwards: {sent}\r\n"),
        )
        .await;
        let got = got.map(|got| format!("\nmax-forwards: {got}\n"));
        assert!(
            got.is_none_or(|got| found.contains(&got)),
            "{sent}: {found}"
        );
    }
    // Of other methods it may be ignored, and is.
    let found = asked(&world, "GET / HTTP/1.1\r\nMax-Forwards: 0\r\n").await;
    assert!(found.contains("\nmax-forwards: 0\n"), "{found}");
}
