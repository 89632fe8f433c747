//! One upstream: its address, and how it fares.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{
    HeaderValue, Uri,
    uri::{self, PathAndQuery, Scheme},
};
use tokio::time::Instant;

/// How long an upstream that can't be reached is asked last.
const REST: Duration = Duration::from_secs(1);
/// A dead upstream must not fill a disk: so many lines a second, and the number of those left out.
const LINES_PER_SECOND: u32 = 10;

#[derive(Debug)]
pub(crate) struct Origin {
    uri: Uri,
    /// As it is named on the command line.
    name: String,
    /// Its own name as a `Host` field.
    host: HeaderValue,
    /// Calls that failed since one was answered.
    failed_in_a_row: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    cause: String,
    unreachable: Option<Instant>,
    second: Option<Instant>,
    lines: u32,
}

// ===== impl Origin =====

impl Origin {
    /// `uri`: a scheme, an authority and perhaps a path.
    pub(crate) fn new(uri: &Uri) -> Self {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let default = if uri.scheme() == Some(&Scheme::HTTPS) {
            ":443"
        } else {
            ":80"
        };
        let host = authority.strip_suffix(default).unwrap_or(authority);
        Self {
            host: HeaderValue::from_str(host).expect("an authority is plain text"),
            name: uri.to_string(),
            uri: uri.clone(),
            failed_in_a_row: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(super) fn is_secure(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    pub(super) fn is_prefixed(&self) -> bool {
        !self.prefix().is_empty()
    }

    fn prefix(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// The target here of a request for `path`.
    ///
    /// # Errors
    ///
    /// With the prefix it is too long.
    pub(super) fn target(&self, path: Option<&PathAndQuery>) -> Result<Uri, http::Error> {
        let mut parts = uri::Parts::default();
        parts.scheme = self.uri.scheme().cloned();
        parts.authority = self.uri.authority().cloned();
        parts.path_and_query = match path {
            Some(path) if self.is_prefixed() && path != "*" => {
                Some(format!("{}{path}", self.prefix()).parse()?)
            }
            Some(path) => Some(path.clone()),
            None => Some(PathAndQuery::from_static("/")),
        };
        Ok(Uri::from_parts(parts)?)
    }

    pub(super) fn answered(&self) {
        // Written only where there is something to write: all cores come by here.
        if self.failed_in_a_row.load(Relaxed) != 0 {
            self.failed_in_a_row.store(0, Relaxed);
        }
    }

    pub(super) fn unreachable(&self) {
        self.trouble().unreachable = Some(Instant::now());
    }

    /// Takes note of a failure. Returns whether it may be logged, and how many before it were not.
    pub(super) fn failed(&self, cause: &str) -> Option<u32> {
        self.failed_in_a_row.fetch_add(1, Relaxed);
        let mut trouble = self.trouble();
        cause.clone_into(&mut trouble.cause);
        let second = Duration::from_secs(1);
        if trouble.second.is_none_or(|began| began.elapsed() >= second) {
            trouble.second = Some(Instant::now());
            let left_out = trouble.lines.saturating_sub(LINES_PER_SECOND);
            trouble.lines = 1;
            return Some(left_out);
        }
        trouble.lines += 1;
        (trouble.lines <= LINES_PER_SECOND).then_some(0)
    }

    /// Whether it could not be reached a moment ago.
    pub(super) fn is_resting(&self) -> bool {
        self.failed_in_a_row.load(Relaxed) > 0
            && self
                .trouble()
                .unreachable
                .is_some_and(|at| at.elapsed() < REST)
    }

    /// Calls that failed since one was answered, and why the last of them did.
    pub(crate) fn failures(&self) -> (u64, String) {
        let failed = self.failed_in_a_row.load(Relaxed);
        let cause = if failed > 0 {
            self.trouble().cause.clone()
        } else {
            String::new()
        };
        (failed, cause)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dead_upstream_logs_ten_lines_a_second_and_how_many_it_left_out() {
        let origin = Origin::new(&Uri::from_static("http://a.example:80"));
        let logged = (0..1_000).filter_map(|_| origin.failed("refused")).count();
        assert_eq!(logged, 10);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(origin.failed("refused"), Some(990));
        assert_eq!(origin.failures(), (1_001, "refused".to_owned()));
        origin.answered();
        assert_eq!(origin.failures(), (0, String::new()));
    }

    #[test]
    fn its_host_has_no_default_port() {
        for (uri, host) in [
            ("http://a.example:80/", "a.example"),
            ("https://a.example:443", "a.example"),
            ("http://a.example:443", "a.example:443"),
            ("http://[::1]:8080/p", "[::1]:8080"),
        ] {
            assert_eq!(Origin::new(&uri.parse().unwrap()).host(), host, "{uri}");
        }
    }
}
