//! What one origin says, how it says it, and who asks: all from one seed.

use tokio::sync::{Semaphore, watch};

use super::check::DATE;
use crate::support::Rng;

/// One origin's answer and those who ask for it.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) method: &'static str,
    pub(super) clients: Vec<Client>,
    /// The bytes of the answer as they are sent, piece by piece.
    pub(super) script: Vec<Vec<u8>>,
    /// Whether the origin closes the connection behind them.
    pub(super) closes: bool,
    /// What the answer means; `None` where nobody can say.
    pub(super) truth: Option<Truth>,
    pub(super) mangle: Mangle,
    /// Its length is said in two ways.
    pub(super) is_ambiguous: bool,
    /// The fields that the answer's `Connection` names: a copy may lack them or not.
    pub(super) named: Vec<String>,
    pub(super) progress: Progress,
}

/// What is true of an answer whatever stands in its head.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) body: Vec<u8>,
    /// The origin breaks off before the end.
    pub(super) is_cut: bool,
    /// Somebody on the way claims a length that it does not have.
    pub(super) lies: bool,
    /// Its trailers are for one client.
    pub(super) is_private: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) speaks: Speaks,
    /// How long it waits before it reads on, in turns of its task.
    pub(super) pace: u64,
    /// The lines of its request behind `Host`.
    pub(super) more: String,
    /// It asks for something else on the same connection before, as it always does behind.
    pub(super) asks_before: bool,
    /// It asks for what comes behind as soon as the head says that the connection stays open.
    pub(super) pipelines: bool,
    pub(super) leaves: Option<Leaves>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http10,
    Http11,
    Http2,
}

/// When a client hangs up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaves {
    /// After so many turns of its task.
    Turns(u64),
    /// After so many bytes, fewer than any head has.
    Bytes(usize),
}

/// What a service between the client and the layer makes of a response.
#[derive(Clone, Debug)]
pub(super) enum Mangle {
    Nothing,
    /// It gives the body without a word of its length.
    HidesHint,
    /// It says of the body how long it is, and may be wrong.
    Hints(u64),
    /// One more line of `Content-Length`.
    Adds(String),
    /// As a proxy that strips what belongs to one hop, and no more.
    Strips,
    /// The body fails after so many frames.
    Breaks(usize),
}

/// How far a case has come.
#[derive(Debug)]
pub(super) struct Progress {
    /// The head is sent when it may be taken from here, and each further piece; closed, everything flows.
    pub(super) gate: Semaphore,
    /// How many requests have come to the layer.
    asked: watch::Sender<usize>,
}

/// An answer that is being made up.
struct Draft {
    rng: Rng,
    fields: Vec<String>,
    body: Vec<u8>,
    sent: Vec<u8>,
    closes: bool,
    truth: Truth,
    is_clear: bool,
}

// ===== impl Case =====

impl Case {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let is_head = rng.chance(12);
        let status = rng.pick(&[200, 200, 200, 200, 200, 206, 404, 503, 301, 204, 304]);
        let bodyless = is_head || matches!(status, 204 | 304);
        let is_old = rng.chance(10);
        let mut draft = Draft {
            body: body(&mut rng),
            fields: fields(&mut rng),
            sent: Vec::new(),
            closes: rng.chance(20),
            truth: Truth {
                body: Vec::new(),
                is_cut: false,
                lies: false,
                is_private: false,
            },
            is_clear: true,
            rng,
        };
        match draft.rng.below(10) {
            0..4 => draft.frame_by_length(),
            4..8 => draft.frame_by_chunks(is_old),
            _ => draft.frame_by_close(),
        }
        if bodyless {
            draft.send_nothing();
        }
        draft.finish(if is_head { "HEAD" } else { "GET" }, status, is_old)
    }
}

impl Case {
    /// What a failure is told with.
    pub(super) fn show(&self) -> String {
        let script: Vec<u8> = self.script.concat();
        let script = script.escape_ascii().to_string();
        let script: String = script.chars().take(1_000).collect();
        let truth = self.truth.as_ref().map(|truth| {
            let Truth {
                body,
                is_cut,
                lies,
                is_private,
            } = truth;
            format!(
                "{} bytes, is_cut {is_cut}, lies {lies}, is_private {is_private}",
                body.len()
            )
        });
        format!(
            "the origin's bytes: {script}\n{:?}, in truth {truth:?}",
            self.mangle
        )
    }
}

/// Bytes that would be taken for a response where a connection is out of step.
fn body(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(100) {
        0..15 => 0,
        15..60 => rng.index(40),
        60..90 => rng.index(3_000),
        90..98 => rng.index(100_000),
        // More than lies in the buffers between an origin and a client.
        _ => rng.index(3_000_000),
    };
    let mut body = b"hello".repeat(len / 5 + 1);
    body.truncate(len);
    let injected = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfrom nowhere";
    if rng.chance(50) && len > 0 {
        let at = rng.index(len);
        body.splice(at..at, injected.iter().copied());
    }
    body
}

fn fields(rng: &mut Rng) -> Vec<String> {
    let date = format!("Date: {DATE}");
    let all = [
        "X-A: 1",
        "x-a: 2",
        "X-Hop: 3",
        "Content-Type: text/html",
        "ETag: \"a\"",
        &date,
        "Connection: close",
        "Connection: keep-alive, X-Hop",
        "Connection: x-a",
        "Connection: Content-Length, Trailer",
        "Connection: transfer-encoding, content-type",
        "Keep-Alive: timeout=5",
        "Upgrade: h2c",
        "TE: trailers",
        "Trailer: x-sum",
        "Trailer: X-Sum, authentication-info, x-later",
        "Trailer: Set-Cookie",
        "Vary: Accept",
        "Vary: *",
        "Cache-Control: private",
        "Set-Cookie: a=b",
        "X-Empty:",
        "X-Raw: \u{e9}",
    ];
    (0..rng.below(6))
        .map(|_| rng.pick(&all).to_owned())
        .collect()
}

impl Client {
    /// `is_new`: on HTTP/2, whose requests have another key.
    fn new(rng: &mut Rng, leaves: bool, is_new: bool) -> Self {
        let is_old = rng.chance(20);
        let mut more = rng
            .pick(&[
                "",
                "te: trailers\r\n",
                "te: trailers\r\n",
                "te: trailers\r\nconnection: te\r\n",
                "te: gzip, trailers\r\nconnection: TE\r\n",
            ])
            .to_owned();
        if rng.chance(10) {
            more += rng.pick(&["connection: close\r\n", "connection: keep-alive\r\n"]);
        }
        if is_old && rng.chance(60) {
            more += "connection: keep-alive\r\n";
        }
        if rng.chance(4) {
            more += "cache-control: no-store\r\n";
        }
        Self {
            speaks: match (is_new, is_old) {
                (true, _) => Speaks::Http2,
                (false, true) => Speaks::Http10,
                (false, false) => Speaks::Http11,
            },
            pace: rng.pick(&[0, 0, 0, 3, 50]),
            more,
            asks_before: rng.chance(30),
            pipelines: rng.chance(50),
            leaves: match rng.below(20) {
                0 if leaves => Some(Leaves::Turns(rng.below(60))),
                1 if leaves => Some(Leaves::Bytes(rng.index(60))),
                _ => None,
            },
        }
    }
}

// ===== impl Progress =====

impl Progress {
    pub(super) fn count(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    pub(super) async fn until_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|asked| *asked >= times).await;
        drop(asked.expect("the sender is here"));
    }
}

// ===== impl Draft =====

impl Draft {
    fn line(&mut self, line: impl Into<String>) {
        // Anywhere among the others.
        let at = self.rng.index(self.fields.len() + 1);
        self.fields.insert(at, line.into());
    }

    fn frame_by_length(&mut self) {
        let len = self.body.len();
        self.sent.clone_from(&self.body);
        self.truth.body.clone_from(&self.body);
        match self.rng.below(20) {
            0 => {
                self.line(format!("Content-Length: {len}"));
                self.line(format!("content-length: {len}"));
            }
            1 => self.line(format!("Content-Length: {len}, {len}")),
            2 => self.line(format!("Content-Length:\t {len} \t")),
            3 => self.line(format!("Content-Length: 00{len}")),
            4 => {
                // Less than comes.
                let less = self.rng.index(len + 1);
                self.line(format!("Content-Length: {less}"));
                self.truth.body.truncate(less);
            }
            5 | 6 => {
                // More than comes.
                let more = len as u64 + 1 + self.rng.below(50);
                self.line(format!("Content-Length: {more}"));
                (self.truth.is_cut, self.closes) = (true, true);
            }
            7 => {
                let other = len + 1;
                self.line(format!("Content-Length: {len}"));
                self.line(format!("Content-Length: {other}"));
                // A client must not take it.
                self.is_clear = false;
                self.closes = true;
            }
            8 => {
                let garbled = self.rng.pick(&[
                    "+5",
                    "-1",
                    "five",
                    "",
                    "5,",
                    "5 5",
                    "5, 6",
                    "18446744073709551615",
                    "18446744073709551616",
                    "0x5",
                ]);
                self.line(format!("Content-Length: {garbled}"));
                self.is_clear = false;
                self.closes = true;
            }
            _ => self.line(format!("Content-Length: {len}")),
        }
    }

    fn frame_by_chunks(&mut self, is_old: bool) {
        let coding = self.rng.pick(&[
            "chunked",
            "chunked",
            "chunked",
            "chunked",
            "Chunked",
            "\t chunked",
            "gzip, chunked",
            "identity, chunked",
            "gzip,chunked",
        ]);
        self.line(format!("Transfer-Encoding: {coding}"));
        for _ in 0..self.rng.pick(&[0, 0, 1, 1, 2]) {
            let len = self.body.len();
            let value = match self.rng.below(5) {
                0 => len.to_string(),
                1 => self.rng.index(len + 1).to_string(),
                2 => (len + 7).to_string(),
                3 => "5".to_owned(),
                _ => self.rng.pick(&["", "x", "-1", "5, 6", "5, 5"]).to_owned(),
            };
            self.line(format!("Content-Length: {value}"));
        }
        if is_old {
            // HTTP/1.0 knows no codings.
            self.is_clear = false;
        }
        let body = std::mem::take(&mut self.body);
        let mut rest = &body[..];
        while !rest.is_empty() {
            let most = self.rng.pick(&[10, 100, 5_000]).max(body.len() / 100);
            let (chunk, behind) = rest.split_at(rest.len().min(1 + self.rng.index(most)));
            let size = match self.rng.below(4) {
                0 => format!("{:X}", chunk.len()),
                1 => format!("0{:x}", chunk.len()),
                2 => format!("{:x};name=value", chunk.len()),
                _ => format!("{:x}", chunk.len()),
            };
            self.sent.extend_from_slice(size.as_bytes());
            self.sent.extend_from_slice(b"\r\n");
            self.sent.extend_from_slice(chunk);
            self.sent.extend_from_slice(b"\r\n");
            rest = behind;
        }
        self.truth.body = body;
        self.sent.extend_from_slice(b"0\r\n");
        if self.rng.chance(60) {
            if self.rng.chance(60) {
                self.line("Trailer: x-sum, X-Later");
            }
            let mut trailers = vec!["x-sum: 42", "X-Later: a", "x-unannounced: b", "x-sum: 43"];
            if self.rng.chance(15) {
                trailers.push(
                    self.rng
                        .pick(&["Set-Cookie: a=b", "authentication-info: a=b"]),
                );
                self.truth.is_private = true;
            }
            if self.rng.chance(10) {
                trailers.push(
                    self.rng
                        .pick(&["content-length: 3", "transfer-encoding: chunked"]),
                );
            }
            for line in trailers {
                let is_private = line.starts_with("Set") || line.starts_with("auth");
                if is_private || self.rng.chance(60) {
                    self.sent.extend_from_slice(line.as_bytes());
                    self.sent.extend_from_slice(b"\r\n");
                }
            }
        }
        self.sent.extend_from_slice(b"\r\n");
        if self.rng.chance(12) {
            let kept = self.rng.index(self.sent.len());
            self.sent.truncate(kept);
            (self.truth.is_cut, self.closes) = (true, true);
        }
    }

    fn frame_by_close(&mut self) {
        if self.rng.chance(20) {
            self.line("Transfer-Encoding: identity");
            if self.rng.chance(50) {
                self.line("Content-Length: 5");
            }
        }
        self.sent.clone_from(&self.body);
        self.truth.body.clone_from(&self.body);
        self.closes = true;
    }

    /// The answer has no body, whatever its head says.
    fn send_nothing(&mut self) {
        self.truth = Truth {
            body: Vec::new(),
            is_cut: false,
            lies: false,
            is_private: false,
        };
        // A few send one all the same.
        if self.rng.chance(90) {
            self.sent.clear();
        }
    }

    fn finish(mut self, method: &'static str, status: u16, is_old: bool) -> Case {
        let rng = &mut self.rng;
        let version = if is_old { "HTTP/1.0" } else { "HTTP/1.1" };
        let reason = rng.pick(&["OK", "Not Quite", ""]);
        let mut bytes = String::new();
        if rng.chance(6) && !is_old {
            bytes += "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        }
        bytes += &format!("{version} {status} {reason}\r\n");
        for line in &self.fields {
            bytes += line;
            bytes += "\r\n";
        }
        bytes += "\r\n";
        let mut bytes = bytes.into_bytes();
        if rng.chance(4) {
            // Anything may stand anywhere.
            let at = rng.index(bytes.len());
            bytes[at] = rng.pick(b"\r\n\0 :,;x\xff\t");
            self.is_clear = false;
            self.closes = true;
        }
        bytes.extend_from_slice(&self.sent);
        let mut script = Vec::new();
        let most = rng.pick(&[20, 400, 200_000]).max(bytes.len() / 100);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(1 + rng.index(most)));
            script.push(piece.to_vec());
            rest = behind;
        }
        let mangle = match rng.below(30) {
            0 | 1 => Mangle::HidesHint,
            2 => {
                self.truth.lies = true;
                let len = self.truth.body.len() as u64;
                Mangle::Hints(rng.pick(&[0, len, len + 3, len.saturating_sub(2)]))
            }
            3 | 4 => {
                self.truth.lies = true;
                let len = self.truth.body.len();
                let values = [
                    len.to_string(),
                    (len + 1).to_string(),
                    "5".into(),
                    "x".into(),
                ];
                Mangle::Adds(rng.pick(&values))
            }
            5 => {
                // What is left may be wrong.
                self.truth.lies = true;
                Mangle::Strips
            }
            6 => {
                self.truth.is_cut = true;
                Mangle::Breaks(rng.index(4))
            }
            _ => Mangle::Nothing,
        };
        let clients = 1 + rng.index(4);
        let is_new = rng.chance(15);
        let clients = (0..clients)
            .map(|_| Client::new(rng, clients > 1, is_new))
            .collect();
        let framing = ["content-length:", "transfer-encoding:"];
        let lines = self.fields.iter().map(|line| line.to_ascii_lowercase());
        let says = |line: &String| framing.iter().any(|name| line.starts_with(name));
        let is_ambiguous = lines.filter(says).count() > 1;
        let named = self.fields.iter().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("connection").then_some(value)
        });
        Case {
            method,
            clients,
            script,
            closes: self.closes,
            truth: self.is_clear.then_some(self.truth),
            mangle,
            is_ambiguous,
            named: named
                .flat_map(|value| value.split(','))
                .map(|name| name.trim().to_ascii_lowercase())
                .collect(),
            progress: Progress {
                gate: Semaphore::new(0),
                asked: watch::Sender::new(0),
            },
        }
    }
}
