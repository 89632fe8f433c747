//! The command line.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use http::Uri;

/// A reverse proxy that makes one upstream call when identical requests arrive at the same time.
#[derive(Clone, Debug, Parser)]
#[command(name = "reverse_proxy", version)]
pub struct Cli {
    /// Where clients connect, with HTTP/1.1 or h2c.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The origin, http://host[:port][/prefix].
    #[arg(long, value_name = "URL", value_parser = upstream)]
    pub(crate) upstream: Uri,
    /// Leave the layer out: a plain proxy, to compare with.
    #[arg(long)]
    pub(crate) no_coalesce: bool,
    /// The largest response body that is copied for followers.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 20)]
    pub(crate) max_body: usize,
    /// How old a flight may be that is still joined (250ms, 5s, 2m).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,
    /// How long a follower waits for a head before it makes its own call.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait_timeout: Option<Duration>,
    /// How long the upstream may take until the head of its response, the request's body included; then the answer is
    /// 504. It is the call's, and so one for all who share it.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Append a Cache-Status member of this name to responses.
    #[arg(long, value_name = "NAME", value_parser = cache_name)]
    pub(crate) cache_status: Option<String>,
    /// Where the operator connects: a live page, /stats, /metrics, /forget and /enabled. It asks for no password.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
}

fn upstream(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("not a URL: {error}"))?;
    if uri.authority().is_none() || uri.scheme() != Some(&http::uri::Scheme::HTTP) {
        return Err("expected http://host[:port]; this example does not speak TLS".to_owned());
    }
    if uri.query().is_some() {
        return Err("a query can't be a prefix".to_owned());
    }
    Ok(uri)
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        other => return Err(format!("unknown unit {other:?}: use ms, s or m")),
    };
    let number: f64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// What RFC 9211 can write; the layer itself would panic.
fn cache_name(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.is_empty() || !printable {
        return Err("expected printable ASCII".to_owned());
    }
    Ok(text.to_owned())
}
