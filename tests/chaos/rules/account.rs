//! An independent account of who may share a response with whom, from the RFCs and this crate's documentation, not from its
//! code: slow, and without a thought for speed.

use std::fmt;

use crate::support::fields::{HOP_BY_HOP, IDS};

/// A request, as text.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) uri: String,
    pub(super) fields: Fields,
    pub(super) has_body: bool,
}

#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Fields,
}

pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// As a message would have them.
fn show(fields: &Fields) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.escape_ascii()));
    lines.collect::<Vec<_>>().join(" | ")
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Names that the key leaves out beside the usual.
    pub(super) ignored: Vec<&'static str>,
    /// A policy that allows everything.
    pub(super) allows_all: bool,
}

/// What the account says of two requests and a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Shared,
    Apart,
    /// The documents leave it open.
    Either,
}

// ===== requests =====

const SAFE: [&str; 8] = [
    "GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH",
];

const PATH: [&str; 3] = ["via", "x-forwarded-for", "x-real-ip"];

const DESCRIPTION: [&str; 4] = [
    "user-agent",
    "priority",
    "referer",
    "upgrade-insecure-requests",
];

const FAMILIES: [&str; 3] = ["x-b3-", "sec-ch-", "sec-fetch-"];

const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

pub(super) fn names_of_lists() -> impl Iterator<Item = &'static str> {
    let families = ["x-b3-traceid", "sec-ch-ua", "sec-fetch-site"];
    IDS.into_iter()
        .chain(PATH)
        .chain(DESCRIPTION)
        .chain(families)
}

fn lines<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = fields.iter().filter(move |(known, _)| known == name);
    named.map(|(_, value)| value.as_slice())
}

fn all<'a>(fields: &'a Fields, name: &'a str) -> Vec<&'a [u8]> {
    lines(fields, name).collect()
}

fn has(fields: &Fields, name: &str) -> bool {
    lines(fields, name).next().is_some()
}

fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !b" \t".contains(byte));
    let end = text.iter().rposition(|byte| !b" \t".contains(byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => b"",
    }
}

/// A list's members, split at commas outside quoted strings; `None` if a quoted string does not end.
fn members(line: &[u8], by: u8) -> Option<Vec<Vec<u8>>> {
    let (mut all, mut member) = (Vec::new(), Vec::new());
    let (mut quoted, mut escaped) = (false, false);
    for &byte in line {
        if !quoted && byte == by {
            all.push(std::mem::take(&mut member));
            continue;
        }
        if escaped {
            escaped = false;
        } else if byte == b'"' {
            quoted = !quoted;
        } else if byte == b'\\' && quoted {
            escaped = true;
        }
        member.push(byte);
    }
    all.push(member);
    let trimmed = all.iter().map(|member| trim(member).to_vec());
    (!quoted).then(|| trimmed.filter(|member| !member.is_empty()).collect())
}

/// `token "=" ( token / quoted-string )`, of which the second part may be absent where `may_be_bare`. Gives the name in
/// lower case, and the value. `is_lenient`: a value without quotes may have any visible character.
fn pair(text: &[u8], may_be_bare: bool, is_lenient: bool) -> Option<(String, Vec<u8>)> {
    let (name, value) = match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    if !is_token(name) {
        return None;
    }
    let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
    let Some(value) = value else {
        return may_be_bare.then(|| (name, Vec::new()));
    };
    let is_quoted = || {
        let inner = value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        let mut escaped = false;
        inner.is_some_and(|inner| {
            inner.iter().all(|&byte| {
                let ok = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                ok && (byte == b'\t' || byte >= b' ' && byte != 0x7f)
            }) && !escaped
        })
    };
    let is_plain = if is_lenient {
        !value.is_empty()
            && value
                .iter()
                .all(|byte| byte.is_ascii_graphic() && *byte != b'"')
    } else {
        is_token(value)
    };
    (is_plain || is_quoted()).then(|| (name, value.to_vec()))
}

/// The names of a `Cache-Control`'s directives; `None` if it can't be read.
fn directives(line: &[u8]) -> Option<Vec<String>> {
    let members = members(line, b',')?;
    let pairs = members.iter().map(|member| pair(member, true, false));
    pairs.map(|pair| pair.map(|(name, _)| name)).collect()
}

fn forbids(fields: &Fields, field: &str, names: &[&str]) -> bool {
    lines(fields, field).any(|line| {
        directives(line).is_none_or(|said| said.iter().any(|name| names.contains(&name.as_str())))
    })
}

/// Whether a request makes its own call whatever others ask.
pub(super) fn is_bypassed(ask: &Ask) -> bool {
    let connection: Vec<_> = names(&ask.fields, "connection");
    let upgrades = {
        let offers: Vec<Vec<u8>> = lines(&ask.fields, "upgrade")
            .flat_map(|line| members(line, b',').unwrap_or_default())
            .collect();
        let is_idle = |offer: &Vec<u8>| offer == b"h2c" || offer.starts_with(b"TLS/");
        let announced = connection.iter().any(|name| name == "upgrade");
        if has(&ask.fields, "upgrade") {
            offers.is_empty() || !offers.iter().all(is_idle)
        } else {
            announced
        }
    };
    let subscribes = lines(&ask.fields, "accept").any(|line| {
        let members = members(line, b',').unwrap_or_default();
        members
            .iter()
            .any(|member| essence(member) == b"text/event-stream")
    });
    !["GET", "HEAD"].contains(&ask.method)
        || ask.has_body
        || upgrades
        || has(&ask.fields, "expect")
        || subscribes
        || forbids(
            &ask.fields,
            "cache-control",
            &["no-store", "only-if-cached"],
        )
}

/// A media type without its parameters, in lower case.
fn essence(member: &[u8]) -> Vec<u8> {
    let essence = member
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    trim(essence).to_ascii_lowercase()
}

/// The names in a list field, in lower case.
fn names(fields: &Fields, field: &str) -> Vec<String> {
    lines(fields, field)
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(trim(name)).to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_ignored(name: &str, settings: &Settings) -> bool {
    HOP_BY_HOP.contains(&name)
        || names_of_lists().any(|known| known == name)
        || FAMILIES.iter().any(|family| name.starts_with(family))
        || settings.ignored.contains(&name)
}

/// Whether a `Forwarded` says nothing but who asks and by which way (RFC 7239): then it is not in the key.
fn is_path_alone(fields: &Fields) -> Verdict {
    let mut verdict = Verdict::Shared;
    for line in lines(fields, "forwarded") {
        let Some(elements) = members(line, b',') else {
            return Verdict::Apart;
        };
        for element in elements {
            for text in members(&element, b';').unwrap_or_default() {
                match pair(&text, false, true) {
                    Some((name, value)) if name == "for" || name == "by" => {
                        // Whoever reads it without a thought for quotes finds more.
                        if value.iter().any(|byte| b",;".contains(byte)) {
                            verdict = Verdict::Either;
                        }
                    }
                    _ => return Verdict::Apart,
                }
            }
        }
    }
    verdict
}

/// Whether two requests that are not bypassed are the same to the default key.
fn is_same(one: &Ask, two: &Ask, settings: &Settings) -> Verdict {
    if one.method != two.method {
        return Verdict::Apart;
    }
    let mut verdict = same_target(one, two);
    let order = |ask: &Ask| {
        let mut order: Vec<String> = Vec::new();
        let named = names(&ask.fields, "connection");
        for (name, _) in &ask.fields {
            let is_in_key = named.contains(name) || !is_ignored(name, settings);
            if !order.contains(name) && is_in_key {
                order.push(name.clone());
            }
        }
        order
    };
    if order(one) != order(two) {
        // The contract does not say whether it matters.
        verdict = verdict.and(Verdict::Either);
    }
    let mut every: Vec<&String> = one
        .fields
        .iter()
        .chain(&two.fields)
        .map(|(name, _)| name)
        .collect();
    every.sort();
    every.dedup();
    let named = [one, two].map(|ask| names(&ask.fields, "connection"));
    for name in every {
        let values = [one, two].map(|ask| all(&ask.fields, name));
        let [is_named, also_named] = [0, 1].map(|at| named[at].contains(name));
        let ignored = is_ignored(name, settings);
        let differ = match name.as_str() {
            "host" => continue,
            "forwarded" if !settings.ignored.contains(&"forwarded") => {
                let kinds = [one, two].map(|ask| is_path_alone(&ask.fields));
                let said = [0, 1].map(|at| match kinds[at] {
                    Verdict::Shared => Vec::new(),
                    _ => values[at].clone(),
                });
                let is_open = kinds.contains(&Verdict::Either) || is_named || also_named;
                if is_open && values[0] != values[1] {
                    verdict = verdict.and(Verdict::Either);
                }
                let is_sure = !kinds.contains(&Verdict::Either);
                is_sure && said[0] != said[1]
            }
            _ if ignored => {
                if (is_named || also_named) && (values[0] != values[1] || is_named != also_named) {
                    // One that is left out unless the request itself makes it a field of its connection.
                    verdict = verdict.and(Verdict::Either);
                }
                false
            }
            _ => values[0] != values[1],
        };
        if differ {
            return Verdict::Apart;
        }
        // A proxy behind the layer takes a field that `Connection` names away.
        let is_there = !values[0].is_empty() && !values[1].is_empty();
        if !ignored && is_there && is_named != also_named {
            return match name.as_str() {
                "forwarded" => Verdict::Either,
                // They name themselves: `Upgrade` where it offers something, and nobody heeds an `HTTP2-Settings` that
                // `Connection` does not name (RFC 7540 section 3.2.1).
                "upgrade" | "http2-settings" => Verdict::Either,
                _ => Verdict::Apart,
            };
        }
    }
    verdict
}

fn same_target(one: &Ask, two: &Ask) -> Verdict {
    let (first, second) = (Target::of(one), Target::of(two));
    let lower = |target: &Target| target.host.to_ascii_lowercase();
    if first.rest != second.rest || lower(&first) != lower(&second) {
        return Verdict::Apart;
    }
    let scheme = |ask: &Ask| {
        ask.uri
            .split_once("://")
            .map(|(scheme, _)| scheme.to_owned())
    };
    match (scheme(one), scheme(two)) {
        (Some(one), Some(two)) if one != two => Verdict::Apart,
        // Beside an authority `Host` is to be ignored, and need not be.
        (one_scheme, two_scheme)
            if one_scheme.is_some() == two_scheme.is_some()
                && first.host == second.host
                && all(&one.fields, "host") == all(&two.fields, "host") =>
        {
            Verdict::Shared
        }
        _ => Verdict::Either,
    }
}

struct Target {
    host: String,
    /// Path and query.
    rest: String,
}

impl Target {
    fn of(ask: &Ask) -> Self {
        if let Some((_, rest)) = ask.uri.split_once("://") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let path = &rest[end..];
            let path = if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            };
            return Self {
                host: rest[..end].to_owned(),
                rest: path,
            };
        }
        let host = all(&ask.fields, "host");
        Self {
            host: String::from_utf8_lossy(&host.join(&b'\n')).into_owned(),
            rest: ask.uri.clone(),
        }
    }
}

// ===== responses =====

const PERSONAL: [u16; 25] = [
    400, 401, 402, 406, 407, 408, 409, 411, 413, 415, 417, 419, 421, 422, 423, 424, 425, 426, 428,
    429, 431, 440, 505, 511, 499,
];

const FOR_ONE: [&str; 8] = [
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
    "proxy-authentication-info",
    "optional-www-authenticate",
    "clear-site-data",
];

/// What `rules::shareable` says.
pub(super) fn is_shareable(answer: &Answer) -> Verdict {
    let fields = &answer.fields;
    let forbidding = ["no-store", "private", "no-cache"];
    let streams = lines(fields, "content-type").map(|line| {
        let is_list = line.contains(&b',');
        let essence = essence(line);
        let is_stream = essence == b"text/event-stream"
            || essence == b"multipart/x-mixed-replace"
            || essence.starts_with(b"application/grpc");
        match (is_stream, is_list) {
            (true, _) => Verdict::Apart,
            // No media type, and nobody can say what is meant.
            (false, true) => Verdict::Either,
            (false, false) => Verdict::Shared,
        }
    });
    let streams = streams.fold(Verdict::Shared, Verdict::and);
    let forbidden = answer.status < 200
        || PERSONAL.contains(&answer.status)
        || (494..=499).contains(&answer.status)
        || fields
            .iter()
            .any(|(name, _)| FOR_ONE.contains(&name.as_str()))
        || forbids(fields, "cache-control", &forbidding)
        || forbids(fields, "cdn-cache-control", &forbidding)
        || lines(fields, "x-accel-expires").any(|line| trim(line) == b"0");
    // What is targeted has a grammar of its own, of which nothing is written down.
    let targeted = lines(fields, "surrogate-control").map(|line| match directives(line) {
        Some(said) if said.iter().any(|name| forbidding.contains(&name.as_str())) => Verdict::Apart,
        Some(_) => Verdict::Shared,
        None => Verdict::Either,
    });
    let targeted = targeted.fold(Verdict::Shared, Verdict::and);
    let expires = lines(fields, "x-accel-expires").any(|line| trim(line).starts_with(b"@"));
    let expires = if expires {
        Verdict::Either
    } else {
        Verdict::Shared
    };
    if forbidden || varies(fields).is_none() {
        return Verdict::Apart;
    }
    streams.and(targeted).and(expires)
}

/// What `Vary` names; `None` for `*`, and for what can't be read.
fn varies(fields: &Fields) -> Option<Vec<String>> {
    let names = names(fields, "vary");
    let readable = names
        .iter()
        .all(|name| name != "*" && is_token(name.as_bytes()));
    readable.then_some(names)
}

/// Whether a second request that came before the response, or while its body was open, may have it too.
pub(super) fn may_share(
    settings: &Settings,
    leader: &Ask,
    second: &Ask,
    answer: &Answer,
) -> Verdict {
    if is_bypassed(leader) || is_bypassed(second) {
        return Verdict::Apart;
    }
    let mut verdict = is_same(leader, second, settings);
    if !settings.allows_all {
        verdict = verdict.and(is_shareable(answer));
    }
    let Some(mut vary) = varies(&answer.fields) else {
        return Verdict::Apart;
    };
    let is_coded = names(&answer.fields, "transfer-encoding")
        .iter()
        .any(|coding| coding != "chunked" && coding != "identity");
    let announces = names(&answer.fields, "trailer")
        .iter()
        .any(|name| FOR_ONE.contains(&name.as_str()));
    if answer.status < 200 || is_coded || announces {
        return Verdict::Apart;
    }
    let mut name_all = |names: &[&str]| vary.extend(names.iter().map(|&name| name.to_owned()));
    if [206, 304, 412, 416].contains(&answer.status) {
        name_all(&[
            "range",
            "if-range",
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
        ]);
    }
    if answer.status == 403 {
        if CREDENTIALS.iter().any(|name| has(&leader.fields, name)) {
            return Verdict::Apart;
        }
        name_all(&CREDENTIALS);
    }
    if [403, 451].contains(&answer.status) {
        name_all(&[
            "user-agent",
            "referer",
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
        ]);
        let families = leader.fields.iter().chain(&second.fields);
        let of_family = families
            .filter(|(name, _)| name.starts_with("sec-fetch-") || name.starts_with("sec-ch-"));
        let names: Vec<&str> = of_family.map(|(name, _)| name.as_str()).collect();
        name_all(&names);
    }
    if (300..400).contains(&answer.status) {
        let location = all(&answer.fields, "location");
        let referer = all(&leader.fields, "referer");
        if !location.is_empty() && location == referer {
            name_all(&["referer"]);
        } else if has(&leader.fields, "referer")
            && all(&leader.fields, "referer") != all(&second.fields, "referer")
        {
            // It may be the same in other words.
            verdict = verdict.and(Verdict::Either);
        }
    }
    for name in vary {
        let values = [leader, second].map(|ask| all(&ask.fields, &name));
        if values[0] == values[1] {
            continue;
        }
        // A different way to write the same list (RFC 9111 section 4.1).
        let written = |lines: &Vec<&[u8]>| {
            let joined = lines.join(&b',');
            joined
                .split(|byte| *byte == b',')
                .map(|member| trim(member).to_vec())
                .filter(|member| !member.is_empty())
                .collect::<Vec<_>>()
        };
        let is_there = values.iter().all(|lines| !lines.is_empty());
        // The key has looked at it, and knows when two spellings are one.
        let is_target = name == "host";
        if is_target || is_there && written(&values[0]) == written(&values[1]) {
            verdict = verdict.and(Verdict::Either);
        } else {
            return Verdict::Apart;
        }
    }
    verdict
}

// ===== writes =====

/// Whether the answer to a write makes a flight of `read` older than itself.
pub(super) fn invalidates(write: &Ask, answer: &Answer, read: &Ask) -> Verdict {
    if SAFE.contains(&write.method) || !(200..400).contains(&answer.status) {
        return Verdict::Shared;
    }
    let (written, read) = (Target::of(write), Target::of(read));
    // Whether an encoded slash is one is not said; a flight too many is detached for it.
    let open = |target: &str| normal(target).replace("%2F", "/");
    let host = written.host.to_ascii_lowercase();
    if host != read.host.to_ascii_lowercase() {
        return Verdict::Shared;
    }
    let same = |target: &str| match target {
        target if normal(target) == normal(&read.rest) => Verdict::Apart,
        target if open(target) == open(&read.rest) => Verdict::Either,
        _ => Verdict::Shared,
    };
    let named = |field: &str| {
        let references = lines(&answer.fields, field).filter_map(|line| {
            let reference = String::from_utf8_lossy(line).into_owned();
            resolve(&host, &written.rest, &reference)
        });
        let here = references.filter(|(there, _)| *there == host);
        let named = here.map(|(_, rest)| same(&rest));
        named.fold(Verdict::Shared, Verdict::and)
    };
    let location = match (named("location"), answer.status) {
        (location, 201 | 303) => location,
        (Verdict::Shared, _) => Verdict::Shared,
        _ => Verdict::Either,
    };
    same(&written.rest)
        .and(named("content-location"))
        .and(location)
}

/// RFC 3986 section 5.2, of which only host, path and query count.
fn resolve(host: &str, base: &str, reference: &str) -> Option<(String, String)> {
    let reference = reference.split('#').next()?.trim();
    let with_authority = reference
        .split_once("://")
        .map(|(_, rest)| rest)
        .or_else(|| reference.strip_prefix("//"));
    if let Some(rest) = with_authority {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let path = &rest[end..];
        let slash = if path.starts_with('/') { "" } else { "/" };
        return Some((rest[..end].to_ascii_lowercase(), format!("{slash}{path}")));
    }
    let base_path = base.split('?').next()?;
    let rest = if reference.is_empty() {
        base.to_owned()
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.starts_with('?') {
        format!("{base_path}{reference}")
    } else {
        let directory = &base_path[..=base_path.rfind('/')?];
        format!("{directory}{reference}")
    };
    Some((host.to_owned(), rest))
}

/// RFC 3986 section 6.2.2: percent-encodings in one case, those of unreserved characters undone, no dot segments.
fn normal(target: &str) -> String {
    let mut plain = String::new();
    let bytes = target.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| target.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                if code.is_ascii_alphanumeric() || b"-._~".contains(&code) {
                    plain.push(char::from(code));
                } else {
                    plain.push_str(&format!("%{code:02X}"));
                }
                at += 3;
            }
            None => {
                plain.push(char::from(bytes[at]));
                at += 1;
            }
        }
    }
    let (path, query) = match plain.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (plain.as_str(), None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

// ===== impl Ask, Answer =====

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = if self.has_body { " with a body" } else { "" };
        let fields = show(&self.fields);
        write!(f, "{} {}{body} [{fields}]", self.method, self.uri)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.status, show(&self.fields))
    }
}

// ===== impl Verdict =====

impl Verdict {
    /// Both must allow it.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Apart, _) | (_, Self::Apart) => Self::Apart,
            (Self::Either, _) | (_, Self::Either) => Self::Either,
            (Self::Shared, Self::Shared) => Self::Shared,
        }
    }
}
