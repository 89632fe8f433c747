//! What a proxy changes in header fields.

mod forwarded;
mod hop_by_hop;
mod lists;

pub(crate) use self::{
    forwarded::{Client, complete_forwarded, put_forwarded},
    hop_by_hop::{is_coded, to_client, to_upstream},
    lists::{has_token, join},
};
