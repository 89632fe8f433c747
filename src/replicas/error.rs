//! An unusable address of the store.

use std::{error::Error, fmt};

/// The address of the store can't be used.
///
/// It never shows the address's user or password.
#[derive(Debug)]
pub struct ReplicasError(pub(super) redis::RedisError);

impl fmt::Display for ReplicasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store's address can't be used: {} (expected redis://[user:password@]host[:port][/db], or rediss:// \
             for TLS, with the feature `redis-tls`)",
            self.0
        )
    }
}

impl Error for ReplicasError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
