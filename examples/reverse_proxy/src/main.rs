//! The command `reverse_proxy`: see the crate's documentation.

use std::io;

use clap::Parser;
use reverse_proxy::{Cli, Proxy};
use tokio::signal::unix;

#[tokio::main]
async fn main() -> io::Result<()> {
    let proxy = Proxy::bind(Cli::parse()).await?;
    println!("listening on http://{}", proxy.address()?);
    if let Some(address) = proxy.admin_address()? {
        println!("admin on http://{address}");
    }
    let twice = async {
        signal().await;
        eprintln!("waiting for requests in flight; once more to end at once");
        signal().await;
    };
    tokio::select! {
        result = proxy.serve(signal()) => result,
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
