//! Which flights a write detaches: those of its target however that is spelt, and of those that its answer names.

use crate::support::{Fields, Origin, ask, assert_idle, request};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Empty;
use tower::Layer;
use tower_singleflight::{Role, SingleflightLayer};

/// A method, a URI and a `Host`.
type Ask<'a> = (&'a str, &'a str, Option<&'a str>);

fn asked((method, uri, host): Ask<'_>) -> Request<Empty<Bytes>> {
    match host {
        Some(host) => request(method, uri, &[("host", host.as_bytes())]),
        None => request(method, uri, &[]),
    }
}

/// A read is in flight when a write is answered with this status and these fields: may the same read that comes after it
/// join?
async fn joins(read: Ask<'_>, write: Ask<'_>, status: u16, fields: Fields<'_>) -> bool {
    let reads = Origin::page();
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    let (head, ()) = response.body(()).expect("a response").into_parts();
    let writes = Origin::new(move |_| Response::from_parts(head.clone(), Bytes::new()));
    writes.open();
    let both = {
        let reads = reads.clone();
        tower::service_fn(move |request: Request<Empty<Bytes>>| {
            let is_read = *request.method() == Method::GET;
            let origin = if is_read { &reads } else { &writes };
            tower::Service::call(&mut origin.clone(), request)
        })
    };
    let layer = SingleflightLayer::new();
    let service = layer.layer(both);
    let first = ask(&service, asked(read));
    let written = ask(&service, asked(write)).await.unwrap();
    assert_eq!(
        (written.role, written.head.status.as_u16()),
        (Role::Bypassed, status)
    );
    let open = layer.handle().in_flight();
    let late = ask(&service, asked(read));
    reads.open();
    assert_eq!(first.await.unwrap().role, Role::Leader);
    let late = late.await.unwrap().role;
    assert_idle(&layer.handle());
    let joins = late == Role::Follower;
    assert_eq!((open, reads.calls()), if joins { (1, 1) } else { (0, 2) });
    joins
}

const READ: Ask<'_> = ("GET", "/a/b", Some("example.org"));

#[tokio::test]
async fn a_safe_method_detaches_nothing() {
    for method in ["OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH"] {
        for status in [200, 207, 303] {
            let fields: Fields<'_> = &[("location", b"/a/b"), ("content-location", b"/a/b")];
            assert!(
                joins(READ, (method, READ.1, READ.2), status, fields).await,
                "{method}"
            );
        }
    }
}

#[tokio::test]
async fn every_other_method_is_a_write() {
    for method in [
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "query",
    ] {
        assert!(
            !joins(READ, (method, READ.1, READ.2), 200, &[]).await,
            "{method}"
        );
    }
}

#[tokio::test]
async fn two_spellings_of_one_uri_are_one_target() {
    let spellings = [
        "/a/b?c=%2f%C3%A9",
        "/%61/b?c=%2F%c3%a9",
        "/a/%62?%63=%2f%C3%A9",
        "/./a/b?c=%2F%C3%A9",
        "/x/../a/b?c=%2F%C3%A9",
        "/x/%2e%2E/a/%2e/b?c=%2f%C3%a9",
        "http://EXAMPLE.org:80/%61/b?c=%2f%C3%A9",
    ];
    for read in spellings {
        for write in spellings {
            let host = |uri: &str| uri.starts_with('/').then_some("example.org");
            let read = ("GET", read, host(read));
            let write = ("PUT", write, host(write));
            assert!(!joins(read, write, 204, &[]).await, "{read:?} {write:?}");
        }
    }
}

#[tokio::test]
async fn the_spelling_of_a_long_uri_makes_no_difference_either() {
    for length in [10, 100, 1_000, 10_000] {
        let path = "long/".repeat(length / 5);
        let read = format!("/a/{path}b?c");
        let host = Some("example.org");
        for write in ["/%61", "/./a", "/x/../a"] {
            let write = format!("{write}/{path}%62?%63");
            assert!(!joins(("GET", &read, host), ("PUT", &write, host), 204, &[]).await);
            let other = format!("{write}&d");
            assert!(joins(("GET", &read, host), ("PUT", &other, host), 204, &[]).await);
        }
    }
}

#[tokio::test]
async fn two_spellings_of_one_uri_do_not_share_a_call() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let asked = ["/a", "/%61", "/./a"].map(|uri| ask(&service, asked(("GET", uri, None))));
    assert_eq!(origin.calls(), 3);
    origin.open();
    assert!(
        crate::support::all(asked)
            .await
            .iter()
            .all(|got| got.role == Role::Leader)
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn what_the_answer_to_a_write_names_on_its_host_is_detached_as_well() {
    let write: Ask<'_> = ("POST", "/a/new?x", READ.2);
    for named in [
        "/a/b",
        "b",
        "./b#fragment",
        "../a/%62",
        "http://example.org/a/b",
        "https://Example.ORG:8443/a/b",
        "//example.org/a/b",
    ] {
        for (status, name) in [
            (201, "location"),
            (303, "location"),
            (302, "location"),
            (200, "content-location"),
            (201, "content-location"),
            (303, "Content-Location"),
        ] {
            let fields: Fields<'_> = &[(name, named.as_bytes())];
            assert!(
                !joins(READ, write, status, fields).await,
                "{status} {name} {named}"
            );
        }
    }
    let both: Fields<'_> = &[("location", b"/elsewhere"), ("content-location", b"b")];
    assert!(!joins(READ, write, 201, both).await);
    // In whatever form the two requests are.
    let fields: Fields<'_> = &[("location", b"b")];
    let absolute = ("GET", "http://example.org/a/b", None);
    assert!(!joins(absolute, write, 303, fields).await);
    assert!(!joins(READ, ("POST", "http://example.org/a/", None), 303, fields).await);
}

#[tokio::test]
async fn what_it_names_elsewhere_is_not_touched() {
    let write: Ask<'_> = ("POST", "/a/new", READ.2);
    for named in [
        "http://example.com/a/b",
        "//example.com/a/b",
        "https://example.org.evil.example/a/b",
        "/a/b/",
        "/a/b?c",
        "/b",
        "a/b",
        "urn:a/b",
        "mailto:example.org/a/b",
    ] {
        let fields: Fields<'_> = &[
            ("location", named.as_bytes()),
            ("content-location", named.as_bytes()),
            ("link", b"</a/b>"),
            ("refresh", b"/a/b"),
        ];
        assert!(joins(READ, write, 201, fields).await, "{named}");
    }
}

#[tokio::test]
async fn a_failed_write_detaches_nothing_that_it_names() {
    for status in [400, 404, 409, 500] {
        let fields: Fields<'_> = &[("location", b"/a/b"), ("content-location", b"/a/b")];
        assert!(
            joins(READ, ("POST", "/a/b", READ.2), status, fields).await,
            "{status}"
        );
    }
}
