//! An unusable address of the store.

use std::{error::Error, fmt};

/// The address of the store can't be used.
///
/// It never shows the address's user or password.
pub struct ReplicasError {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Url(redis::RedisError),
    NoNodes,
}

impl ReplicasError {
    pub(crate) fn url(error: redis::RedisError) -> Self {
        Self {
            kind: Kind::Url(error),
        }
    }

    pub(crate) fn no_nodes() -> Self {
        Self {
            kind: Kind::NoNodes,
        }
    }
}

impl fmt::Display for ReplicasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Url(error) => write!(
                f,
                "the store's address can't be used: {error} (expected redis://[user:password@]host[:port][/db], or \
                 rediss:// for TLS, with the feature `redis-tls`)"
            ),
            Kind::NoNodes => f.write_str("no address of the store was given"),
        }
    }
}

impl fmt::Debug for ReplicasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplicasError").field(&self.kind).finish()
    }
}

impl Error for ReplicasError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            Kind::Url(error) => Some(error),
            Kind::NoNodes => None,
        }
    }
}
