//! Where the log goes, and what is in it.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Logs to standard error what `RUST_LOG` asks for, `info` where it is not set: `warn`, `reverse_proxy=debug`, or
/// `tower_singleflight=debug` for what becomes of each request in the layer.
///
/// # Errors
///
/// `RUST_LOG` can't be read.
pub(crate) fn init(access_log: bool) -> io::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => text
            .parse::<Targets>()
            .map_err(|error| io::Error::other(format!("RUST_LOG {text:?}: {error}")))?,
        // The layer's spans are for those who ask for them: they cost time for each request.
        Err(_) => Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("tower_singleflight", LevelFilter::WARN),
    };
    let filter = if access_log {
        filter.with_target("access", LevelFilter::INFO)
    } else {
        filter
    };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(())
}
