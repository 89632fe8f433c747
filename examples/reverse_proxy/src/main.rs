//! The command `reverse_proxy`: see the crate's documentation.

use std::{io, process::ExitCode};

use clap::Parser;
use reverse_proxy::{Cli, Proxy};
use tokio::signal::unix;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reverse_proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<()> {
    let cli = Cli::parse();
    cli.init_logs()?;
    let proxy = Proxy::bind(cli).await?;
    let scheme = if proxy.is_secure() { "https" } else { "http" };
    println!("listening on {scheme}://{}", proxy.address()?);
    if let Some(address) = proxy.admin_address()? {
        println!("admin on http://{address}");
    }
    let twice = async {
        signal().await;
        eprintln!("waiting for requests in flight; once more to end at once");
        signal().await;
    };
    tokio::select! {
        () = proxy.serve(signal()) => Ok(()),
        () = twice => Err(io::Error::other("ended with requests in flight")),
    }
}

async fn signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        unix::signal(unix::SignalKind::interrupt()),
        unix::signal(unix::SignalKind::terminate()),
    ) else {
        // They keep their default, to end the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
