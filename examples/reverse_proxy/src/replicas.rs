//! Coalescing across proxies: what the options ask for, and what came of it.

use std::{io, time::Duration};

use tower_singleflight::{SingleflightLayer, Stats};

use crate::cli::Cli;

/// What became of the flights, and how the store does.
pub(crate) struct Numbers {
    pub(crate) is_up: bool,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) led: u64,
    pub(crate) followed: u64,
    pub(crate) takeovers: u64,
    /// Calls for this proxy alone, by reason.
    pub(crate) alone: [(&'static str, u64); 4],
}

/// The layer, with the other proxies that the options name.
///
/// # Errors
///
/// An address that is none, a secret that can't be read or is too short; the error says which.
#[cfg(feature = "replicas")]
pub(crate) fn across(layer: SingleflightLayer, cli: &Cli) -> io::Result<SingleflightLayer> {
    use tower_singleflight::Replicas;

    use crate::cli::StoreKind;

    // The command line has all three or none.
    let (false, Some(namespace), Some(file)) =
        (cli.replicas.is_empty(), &cli.namespace, &cli.secret_file)
    else {
        return Ok(layer);
    };
    let urls: Vec<_> = cli.replicas.iter().map(|url| url.0.as_str()).collect();
    let replicas = match &cli.store {
        StoreKind::Cluster => Replicas::redis_cluster(&urls),
        StoreKind::Sentinel(name) => Replicas::redis_sentinel(name, &urls),
        StoreKind::Single => match urls[..] {
            [url] => Replicas::redis(url),
            _ => {
                return Err(wrong(
                    "several addresses need --store cluster or sentinel:NAME",
                ));
            }
        },
    };
    let replicas = replicas.map_err(wrong)?;
    let mut replicas = replicas.namespace(namespace).secret(secret(file)?);
    if let Some(patience) = cli.patience {
        replicas = replicas.patience(patience);
    }
    Ok(layer.replicas(replicas))
}

#[cfg(not(feature = "replicas"))]
pub(crate) fn across(layer: SingleflightLayer, cli: &Cli) -> io::Result<SingleflightLayer> {
    if cli.replicas.is_empty() {
        return Ok(layer);
    }
    Err(wrong(
        "this binary was built without it: cargo run --release -p reverse_proxy --features replicas",
    ))
}

fn wrong(what: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("--replicas: {what}"))
}

/// What is in the file, but for white space at its end: some editors add a line.
#[cfg(feature = "replicas")]
fn secret(file: &std::path::Path) -> io::Result<Vec<u8>> {
    const LEAST: usize = 32;
    let failed = |what: &dyn std::fmt::Display| {
        io::Error::other(format!("--secret-file {}: {what}", file.display()))
    };
    let mut secret = std::fs::read(file).map_err(|error| failed(&error))?;
    secret.truncate(secret.trim_ascii_end().len());
    if secret.len() < LEAST {
        let length = secret.len();
        return Err(failed(&format_args!(
            "has {length} bytes, and a secret at least {LEAST}: openssl rand -hex 32 makes one"
        )));
    }
    Ok(secret)
}

// ===== impl Numbers =====

impl Numbers {
    /// `None` without other proxies.
    #[cfg(feature = "replicas")]
    pub(crate) fn of(stats: &Stats) -> Option<Self> {
        let replicas = stats.replicas?;
        Some(Self {
            is_up: replicas.is_up,
            round_trip: replicas.round_trip,
            led: replicas.led,
            followed: replicas.followed,
            takeovers: replicas.takeovers,
            alone: [
                ("slow", replicas.alone_slow),
                ("down", replicas.alone_down),
                ("short", replicas.alone_short),
                ("told", replicas.alone_told),
            ],
        })
    }

    #[cfg(not(feature = "replicas"))]
    pub(crate) fn of(_: &Stats) -> Option<Self> {
        None
    }
}
