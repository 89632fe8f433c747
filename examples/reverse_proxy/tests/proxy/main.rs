//! The reverse proxy against real origins on loopback.

mod admin;
mod connections;
mod failures;
mod fields;
mod framing;
mod hosts;
mod identities;
mod keep_alive;
mod logs;
mod replicas;
mod settings;
mod several;
mod sharing;
mod support;
mod targets;
mod tls;
