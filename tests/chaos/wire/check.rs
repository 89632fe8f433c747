//! What a client may have read: compared with what is true of the answer, and with what the same stack sends without the
//! layer.

use super::case::{Case, Mangle};
use crate::support::wire::{Broken, Fields, Framing, Message};

/// All that a client has read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) answer: Result<Message, Broken>,
    /// What came on the same connection behind it, or before.
    pub(super) others: Vec<Result<Message, Broken>>,
    /// Whether each was what was asked for.
    pub(super) is_in_step: bool,
}

/// The only date that an origin gives.
pub(super) const DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

pub(super) const ROLE: &str = "x-role";

/// Whether `seen`, through the layer, is right. `alone`: what the same client sees without it.
pub(super) fn check(case: &Case, seen: &Seen, alone: Option<&Seen>) -> Result<(), String> {
    if !seen.is_in_step {
        return Err("the connection is out of step".to_owned());
    }
    let message = match &seen.answer {
        Ok(message) => message,
        Err(Broken::Malformed(what)) => return Err(format!("malformed: {what}")),
        Err(Broken::Closed(0)) if may_fail(case, alone, true) => return Ok(()),
        Err(Broken::Closed(_)) => return Err("no response".to_owned()),
    };
    let role = message.all(ROLE).concat();
    let follows = role == b"Follower";
    if role.is_empty() {
        return Err("no role".to_owned());
    }
    check_truth(case, message, alone, follows)?;
    let is_cut = case.truth.as_ref().is_some_and(|truth| truth.is_cut);
    let hides_cut = |alone: &Message| is_cut && alone.framing == Framing::Close;
    match alone.map(|alone| &alone.answer) {
        Some(Ok(alone)) if alone.is_whole && alone.is_clear() && !hides_cut(alone) => {
            check_alone(case, message, alone, follows)
        }
        _ => Ok(()),
    }
}

/// Whether a client may get less than a whole response.
fn may_fail(case: &Case, alone: Option<&Seen>, follows: bool) -> bool {
    let without = match alone.map(|alone| &alone.answer) {
        Some(Ok(message)) => !message.is_whole,
        Some(Err(_)) | None => true,
    };
    without
        || case
            .truth
            .as_ref()
            .is_none_or(|truth| truth.is_cut || follows && (truth.lies || truth.is_private))
}

fn check_truth(
    case: &Case,
    message: &Message,
    alone: Option<&Seen>,
    follows: bool,
) -> Result<(), String> {
    if !message.is_whole && !may_fail(case, alone, follows) {
        return Err("a body that breaks off".to_owned());
    }
    let Some(truth) = &case.truth else {
        return Ok(());
    };
    if message.is_refusal() {
        return Ok(());
    }
    let wanted = match message.framing {
        Framing::Absent => &[][..],
        _ => &truth.body,
    };
    if message.framing == Framing::Frames && message.is_whole {
        let length = message.length().unwrap_or(message.body.len() as u64);
        if length != message.body.len() as u64 {
            return Err(format!(
                "{length} bytes announced, {} sent",
                message.body.len()
            ));
        }
    }
    let is_prefix = wanted.starts_with(&message.body);
    // Where the connection's end is the body's, a cut can't be told from it.
    let may_be_less = !message.is_whole
        || truth.lies
        || truth.is_cut && message.framing == Framing::Close
        || truth.is_private && message.framing == Framing::Close;
    if is_prefix && (may_be_less || message.body.len() == wanted.len()) {
        Ok(())
    } else {
        Err(format!(
            "a body of {} bytes that are not the origin's {}",
            message.body.len(),
            wanted.len()
        ))
    }
}

/// `alone` is whole, so this must be as good.
fn check_alone(
    case: &Case,
    message: &Message,
    alone: &Message,
    follows: bool,
) -> Result<(), String> {
    let differs = |what: &str| Err(format!("{what} differ"));
    if message.status != alone.status || message.version != alone.version {
        return differs("status lines");
    }
    if !message.is_whole {
        return Ok(());
    }
    let is_private = case.truth.as_ref().is_some_and(|truth| truth.is_private);
    if message.framing == Framing::Close {
        // A body that fails, which this client can't tell from its end. How much of it comes before that is a matter of time.
        let (mine, theirs) = (&message.body, &alone.body);
        let may_fail =
            case.truth.is_none() && (mine.starts_with(theirs) || theirs.starts_with(mine));
        if may_fail || follows && is_private {
            return Ok(());
        }
    }
    if message.body != alone.body {
        return differs("bodies");
    }
    if message.trailers != alone.trailers && !(follows && is_private) {
        return differs("trailers");
    }
    let is_framed_alike = message.framing == alone.framing;
    // Once it is all there, its length is known.
    let may_know = message.framing == Framing::Length && alone.trailers.is_empty();
    if !is_framed_alike && !may_know {
        return differs("framings");
    }
    if follows {
        // Its connection is its own.
        if message.closes() && !alone.closes() {
            return Err("a connection that need not be closed".to_owned());
        }
        for name in ["keep-alive", "proxy-connection", "te", "upgrade"] {
            if !message.all(name).is_empty() {
                return Err(format!("a copy with {name}"));
            }
        }
    } else if is_framed_alike && message.closes() != alone.closes() {
        return differs("ends of the connection");
    }
    let ignores = |name: &str| match name {
        ROLE => true,
        // Of a body that is not sent; without the layer it passes even where it is none.
        "content-length" if message.framing == Framing::Absent => {
            // HTTP/2 needs none for a body that ends with its head.
            let is_empty = message.length().is_none();
            // A copy keeps it whatever `Connection` says; hyper's server takes it out, and says 0 for it.
            let is_taken = follows && case.named.iter().any(|named| named == name);
            let says_nothing = message.version == "HTTP/2.0" && alone.length() == Some(0);
            let is_quirk = says_nothing && (is_empty || is_taken);
            [204, 304].contains(&message.status) || alone.length().is_none() || is_quirk
        }
        // The bodies are the same, so their lengths are.
        "content-length" => [Framing::Length, Framing::Frames].contains(&message.framing),
        "transfer-encoding" if !is_framed_alike => true,
        "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade" => follows,
        name => follows && case.named.iter().any(|named| named == name),
    };
    let (mine, theirs) = (sorted(message, ignores), sorted(alone, ignores));
    if mine != theirs {
        return Err(format!(
            "fields differ: {}\nalone: {}",
            show(&mine),
            show(&theirs)
        ));
    }
    Ok(())
}

/// The fields by name, the lines of each in their order.
fn sorted(message: &Message, ignores: impl Fn(&str) -> bool) -> Fields {
    let kept = message.fields.iter().filter(|(name, _)| !ignores(name));
    // A date that the origin has not given is the server's.
    let kept = kept.filter(|(name, value)| name != "date" || value == DATE.as_bytes());
    let mut fields: Fields = kept.cloned().collect();
    for (name, value) in &mut fields {
        // hyper's server writes this behind whichever list follows a `Transfer-Encoding` that does not end in it.
        if let ("trailer" | "connection", Some(rest)) =
            (name.as_str(), value.strip_suffix(b", chunked"))
        {
            *value = rest.to_vec();
        }
    }
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn show(fields: &Fields) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.escape_ascii()));
    lines.collect::<Vec<_>>().join(" | ")
}

// ===== impl Seen =====

impl Seen {
    /// In a few lines, but for long fields.
    pub(super) fn show(&self) -> String {
        let message = |message: &Result<Message, Broken>| match message {
            Ok(message) => format!(
                "{} {} {:?} [{}] {} bytes, {}, trailers [{}]",
                message.version,
                message.status,
                message.framing,
                show(&message.fields),
                message.body.len(),
                if message.is_whole { "whole" } else { "cut" },
                show(&message.trailers),
            ),
            Err(broken) => format!("{broken:?}"),
        };
        let others: Vec<_> = self.others.iter().map(message).collect();
        let others = others.join(" and ");
        let step = if self.is_in_step { "in" } else { "out of" };
        format!("{} and {others}; {step} step", message(&self.answer))
    }
}

// ===== impl Case =====

impl Case {
    /// Whether a server without the layer can be trusted with it.
    pub(super) fn is_honest(&self) -> bool {
        let truth = self.truth.as_ref();
        !truth.is_some_and(|truth| truth.lies)
            && !self.is_ambiguous
            && !matches!(
                self.mangle,
                Mangle::Hints(_) | Mangle::Adds(_) | Mangle::Strips
            )
    }
}

// ===== impl Message =====

impl Message {
    /// Whether it is the answer of the client that could not read the origin's.
    pub(super) fn is_refusal(&self) -> bool {
        !self.all("x-refused").is_empty()
    }

    /// Whether its framing is said in one way.
    fn is_clear(&self) -> bool {
        self.all("content-length").len() + self.all("transfer-encoding").len() <= 1
    }
}
