//! Audits: a request that could follow makes its own call, and we compare its response with the flight's.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `original` | [`Original`]: the flight's response, with which those of its auditors are compared |
//! | `auditor` | [`Auditor`]: an audited request, from its call to the end of its body |
//! | `body` | [`AuditedBody`]: its body, as it came |
//! | `answer` | what is kept of a response, and how two of them differ |
//! | `digest` | a body's length, and its digest at each power of ten |
//!
//! Invariants, cited as A1 to A4:
//!
//! 1. An auditor finds its original under the lock under which it would have joined. The original starts with the bytes
//!    of the body that are there, and gets every later one.
//! 2. Each side ends once. The side that ends second compares.
//! 3. An audit counts once, and only if the rules would have given the flight's response to the auditor.
//! 4. No body is kept, and the flight and its auditors go on as without the audit.

mod answer;
mod auditor;
mod body;
mod digest;
mod original;

pub(crate) use self::{
    auditor::Auditor,
    body::AuditedBody,
    original::{Original, Recipients},
};
