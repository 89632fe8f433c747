//! What an HTTP layer sends to other replicas: keys, variants and responses, written as bytes.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `names` | digests of requests and of variants |
//! | `answer` | [`RemoteAnswer`]: the result of a call, written and read |
//! | `fields` | header fields, written and read |
//! | `body` | [`RemoteBody`]: the frames of a response from another replica |

mod answer;
mod body;
mod fields;
mod names;

pub(crate) use self::{
    answer::{RemoteAnswer, RemoteResponse, write_failure, write_response},
    body::RemoteBody,
    names::{request_name, variant_name, variant_values},
};
