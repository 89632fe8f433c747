//! The layer with real peers, each in a file of its own: `cargo test -p works-with`.
#![cfg(test)]

mod graphql;
mod support;
