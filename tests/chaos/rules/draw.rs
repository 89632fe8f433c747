//! Requests and responses that are drawn to lie near a border of the rules.

use super::account::{Answer, Ask, Fields, Settings, names_of_lists};
use crate::support::Rng;

/// Names on no list, some of them one letter away from one.
const KEPT: [&str; 30] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "baggage",
    "cf-connecting-ip",
    "cookie",
    "dnt",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "ot-tracer-trace",
    "origin",
    "pragma",
    "proxy-authorization",
    "range",
    "save-data",
    "sec-ch",
    "sec-fetch",
    "sec-gpc",
    "tracestate",
    "user-agents",
    "x-b3",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-user",
    "x-user-id",
    "x-request-idx",
];

const VALUES: [&str; 14] = [
    "a",
    "b",
    "A",
    "a, b",
    "a,b",
    "",
    "1",
    "text/html",
    "text/html, text/event-stream",
    "text/event-stream;q=0",
    "\"text/event-stream\"",
    "text/event-streams",
    "http://other/page",
    "gzip",
];

const FORWARDED: [&str; 14] = [
    "for=1.2.3.4",
    "for=1.2.3.4:80",
    "For=\"[::1]:80\";by=proxy",
    "for=a, for=b;by=c",
    "for=a;;by=b",
    "host=a",
    "for=a;host=a",
    "for=a;proto=https",
    "for=a, proto=http",
    "for=\"a;host=b\"",
    "for=\"a",
    "for",
    "",
    "by=\"a, host=b\"",
];

const CACHE_CONTROL: [&str; 10] = [
    "no-cache",
    "max-age=0",
    "max-age=60, public",
    "no-store",
    "No-Store",
    "only-if-cached",
    "x=\"no-store\"",
    "x=\"no-store",
    "max-age=1;no-store",
    "no-stores, public",
];

const CONNECTION: [&str; 8] = [
    "close",
    "keep-alive",
    "x-user-id",
    "te, x-user-id",
    "User-Agent",
    "upgrade",
    "Upgrade, HTTP2-Settings",
    "x-absent",
];

const UPGRADE: [&str; 5] = [
    "h2c",
    "TLS/1.0",
    "websocket",
    "h2c, websocket",
    "h2c, TLS/1.2",
];

const PATHS: [&str; 10] = [
    "/", "/a", "/a?b=1", "/a?b=2", "/%61", "/a/../a", "/a/", "/b", "/a/b", "/a%2fb",
];

pub(super) fn settings(rng: &mut Rng) -> Settings {
    let ignored = [
        "accept",
        "cookie",
        "authorization",
        "range",
        "if-none-match",
        "x-user-id",
        "save-data",
        "forwarded",
    ];
    Settings {
        ignored: if rng.chance(50) {
            ignored.into_iter().filter(|_| rng.chance(40)).collect()
        } else {
            Vec::new()
        },
        allows_all: rng.chance(25),
    }
}

fn field(rng: &mut Rng) -> (String, Vec<u8>) {
    let listed: Vec<&str> = names_of_lists().collect();
    let (name, values) = match rng.below(20) {
        0..7 => (rng.pick(&listed), &VALUES[..]),
        7..14 => (rng.pick(&KEPT), &VALUES[..]),
        14 => ("forwarded", &FORWARDED[..]),
        15 => ("cache-control", &CACHE_CONTROL[..]),
        16 => ("connection", &CONNECTION[..]),
        17 => ("upgrade", &UPGRADE[..]),
        18 => (
            rng.pick(&["te", "keep-alive", "proxy-connection"]),
            &VALUES[..],
        ),
        _ if rng.chance(20) => ("expect", &["100-continue"][..]),
        _ => ("referer", &["http://other/page", "http://other/"][..]),
    };
    (name.to_owned(), rng.pick(values).as_bytes().to_vec())
}

/// A request that is most likely coalesced.
pub(super) fn ask(rng: &mut Rng) -> Ask {
    let few = rng.pick(&[1, 2, 5]);
    let mut fields: Fields = (0..rng.below(few)).map(|_| field(rng)).collect();
    let path = rng.pick(&PATHS);
    let host = rng.pick(&["h", "h", "H", "other", "h:80"]);
    let uri = if rng.chance(20) {
        format!("http://{host}{path}")
    } else {
        path.to_owned()
    };
    if !uri.starts_with("http") || rng.chance(20) {
        fields.push(("host".to_owned(), host.as_bytes().to_vec()));
    }
    Ask {
        method: match rng.below(40) {
            0 => "POST",
            1 => "QUERY",
            2..5 => "HEAD",
            _ => "GET",
        },
        uri,
        fields,
        has_body: rng.chance(2),
    }
}

/// Another request, that differs from `ask` in a little or in nothing.
pub(super) fn other(rng: &mut Rng, ask: &Ask) -> Ask {
    let mut other = ask.clone();
    for _ in 0..rng.pick(&[0, 0, 1, 1, 1, 2]) {
        change(rng, &mut other);
    }
    other
}

fn change(rng: &mut Rng, ask: &mut Ask) {
    let len = ask.fields.len();
    match rng.below(16) {
        0..4 => {
            let at = rng.index(len + 1);
            ask.fields.insert(at, field(rng));
        }
        4 | 5 if len > 0 => {
            let at = rng.index(len);
            ask.fields.remove(at);
        }
        6 | 7 if len > 0 => {
            let (at, to) = (rng.index(len), rng.index(len));
            ask.fields.swap(at, to);
        }
        8 | 9 if len > 0 => {
            let at = rng.index(len);
            let name = ask.fields[at].0.clone();
            let pools: &[&str] = match name.as_str() {
                "forwarded" => &FORWARDED,
                "cache-control" => &CACHE_CONTROL,
                "connection" => &CONNECTION,
                "upgrade" => &UPGRADE,
                "host" => &["h", "H", "other"],
                "expect" => return,
                _ => &VALUES,
            };
            ask.fields[at].1 = rng.pick(pools).as_bytes().to_vec();
        }
        10 if len > 0 => {
            // The same line once more.
            let at = rng.index(len);
            let line = ask.fields[at].clone();
            if line.0 != "host" {
                ask.fields.insert(at, line);
            }
        }
        11 if len > 0 => {
            // A byte wanders from the name to the value.
            let at = rng.index(len);
            let (name, value) = &mut ask.fields[at];
            if let (Some(last), true) = (name.pop(), name.len() > 2 && !name.ends_with("hos")) {
                value.insert(0, last as u8);
            }
            if ["hos", ""].contains(&name.as_str()) {
                ask.fields.remove(at);
            }
        }
        12 => ask.uri = rng.pick(&PATHS).to_owned(),
        13 => ask.method = rng.pick(&["GET", "HEAD"]),
        14 if len > 0 => {
            // Two lines become one.
            let at = rng.index(len);
            let (name, value) = ask.fields[at].clone();
            let next = ask
                .fields
                .iter()
                .skip(at + 1)
                .position(|(known, _)| *known == name);
            if let (Some(next), true) = (next, name != "host") {
                let (_, more) = ask.fields.remove(at + 1 + next);
                ask.fields[at].1 = [&value[..], b", ", &more].concat();
            }
        }
        _ => {}
    }
}

pub(super) fn answer(rng: &mut Rng) -> Answer {
    let status = match rng.below(20) {
        0..12 => 200,
        12..15 => rng.pick(&[206, 304, 412, 416, 403, 403, 451, 302, 303, 404, 500, 503]),
        15..18 => rng.pick(&[403, 451, 206, 301]),
        _ => 100 + u16::try_from(rng.below(500)).expect("a small number"),
    };
    let few = rng.pick(&[1, 2, 4]);
    let mut fields: Fields = (0..rng.below(few)).map(|_| answer_field(rng)).collect();
    if (300..400).contains(&status) {
        let to = rng.pick(&["http://other/page", "http://other/", "/page"]);
        fields.push(("location".to_owned(), to.as_bytes().to_vec()));
    }
    Answer { status, fields }
}

fn answer_field(rng: &mut Rng) -> (String, Vec<u8>) {
    let rows: &[(&str, &[&str])] = &[
        (
            "vary",
            &[
                "accept",
                "Accept, Cookie",
                "*",
                "accept, *",
                "user-agent",
                "x-forwarded-for",
                "referer, sec-fetch-site",
                "forwarded",
                "x-user-id, save-data",
                "",
                "accept encoding",
                "host",
                "connection, te",
            ],
        ),
        (
            "cache-control",
            &[
                "private",
                "Private",
                "no-store",
                "max-age=60, no-cache",
                "no-cache=\"set-cookie\"",
                "private=\"x-user\"",
                "x=\"private, no-store\"",
                "x=\"private",
                "public, max-age=60",
                "s-maxage=0, must-revalidate",
                "privates",
                "max-age=1;private",
                ", ,public,",
                "max-age = 1",
                "no-store\t",
                "",
            ],
        ),
        (
            "cdn-cache-control",
            &["private", "no-store", "max-age=60", "no-cache, x=1"],
        ),
        (
            "surrogate-control",
            &[
                "no-store",
                "max-age=60",
                "content=\"ESI/1.0\", no-store",
                "max-age=60+30",
            ],
        ),
        ("x-accel-expires", &["0", "60", " 0", "@0", "off"]),
        (
            "content-type",
            &[
                "text/html",
                "text/event-stream",
                "Text/Event-Stream; charset=utf-8",
                "multipart/x-mixed-replace;boundary=a",
                "application/grpc",
                "application/grpc+proto",
                "application/grpc-web",
                "text/event-streams",
                "text/html, text/event-stream",
                "text/html; a=text/event-stream",
            ],
        ),
        ("set-cookie", &["a=b", ""]),
        ("set-cookie2", &["a=b"]),
        ("www-authenticate", &["Basic"]),
        ("proxy-authenticate", &["Basic"]),
        ("authentication-info", &["nextnonce=\"a\""]),
        ("proxy-authentication-info", &["nextnonce=\"a\""]),
        ("optional-www-authenticate", &["Basic"]),
        ("clear-site-data", &["\"*\""]),
        (
            "trailer",
            &["x-sum", "x-sum, Set-Cookie", "authentication-info"],
        ),
        (
            "transfer-encoding",
            &["chunked", "gzip, chunked", "identity"],
        ),
        ("pragma", &["no-cache"]),
        ("expires", &["0"]),
        ("etag", &["\"a\""]),
        ("x-a", &["private", "no-store"]),
    ];
    // The fields with most to say come most often.
    let at = if rng.chance(50) {
        rng.index(3)
    } else {
        rng.index(rows.len())
    };
    let (name, values) = rows[at];
    (name.to_owned(), rng.pick(values).as_bytes().to_vec())
}

// ===== writes =====

/// A read, a write of a URI near it, and the write's answer.
pub(super) fn write(rng: &mut Rng) -> (Ask, Ask, Answer) {
    let paths = [
        "/a", "/%61", "/b/../a", "/./a", "/a?q", "/a?q=%61", "/a?q=a", "/a/b", "/a%2Fb", "/a%2fb",
        "/b", "/a/", "/", "/a/.", "/~a", "/%7Ea", "/%7ea",
    ];
    let spell = |rng: &mut Rng, path: &str| {
        let host = rng.pick(&["h", "h", "h", "H", "other"]);
        let fields = vec![("host".to_owned(), host.as_bytes().to_vec())];
        if rng.chance(30) {
            (format!("http://{host}{path}"), Vec::new())
        } else {
            (path.to_owned(), fields)
        }
    };
    let path = rng.pick(&paths);
    let (uri, fields) = spell(rng, path);
    let read = Ask {
        method: "GET",
        uri,
        fields,
        has_body: false,
    };
    let near = if rng.chance(40) {
        path
    } else {
        rng.pick(&paths)
    };
    let (uri, fields) = spell(rng, near);
    let write = Ask {
        method: rng.pick(&[
            "POST", "PUT", "DELETE", "PATCH", "MOVE", "OPTIONS", "QUERY", "PROPFIND", "REPORT",
            "SEARCH", "TRACE",
        ]),
        uri,
        fields,
        has_body: false,
    };
    let status = rng.pick(&[200, 201, 201, 204, 303, 303, 302, 400, 404, 500]);
    let mut fields = Vec::new();
    for name in ["location", "content-location"] {
        if rng.chance(40) {
            let to = rng.pick(&paths);
            let reference = match rng.below(8) {
                0 => format!("http://h{to}"),
                1 => format!("//h{to}"),
                2 => format!("http://other{to}"),
                3 => format!("HTTP://H{to}"),
                4 => to[1..].to_owned(),
                5 => format!("{to}#fragment"),
                6 => format!("..{to}"),
                _ => to.to_owned(),
            };
            fields.push((name.to_owned(), reference.into_bytes()));
        }
    }
    (read, write, Answer { status, fields })
}
