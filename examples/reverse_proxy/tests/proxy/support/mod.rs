//! An origin, the proxy before it, and clients.

mod clients;
mod origins;
#[cfg(feature = "replicas")]
mod store;
mod world;

pub(crate) use std::{net::SocketAddr, sync::atomic::Ordering};

pub(crate) use bytes::Bytes;
pub(crate) use http::{Method, Request, Response, StatusCode, Version, header};
pub(crate) use http_body_util::{BodyExt, Full, StreamBody};
pub(crate) use hyper::body::Frame;
pub(crate) use hyper_util::{client::legacy::Client, rt::TokioExecutor};
pub(crate) use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

#[cfg(feature = "replicas")]
pub(crate) use self::store::Store;
pub(crate) use self::{
    clients::{client, h2c, head_and_body, send_from, text},
    origins::{Chunks, Script, nobody, one_answer, read_head},
    world::World,
};
