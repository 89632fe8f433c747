//! Audits: a request that could follow makes its own call, and its answer is compared with the flight's.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `original` | [`Original`]: the flight's answer, with which those of its auditors are compared |
//! | `auditor` | [`Auditor`]: an audited request, from its call to the end of its body |
//! | `body` | [`AuditedBody`]: its body, as it came |
//! | `answer` | what is kept of an answer, and in what two of them differ |
//! | `digest` | a body's length, and its digest at each power of ten |
//!
//! Invariants, cited as A1 to A4:
//!
//! 1. An auditor finds its original under the lock in which it would have joined. From then on the original hears of
//!    every byte of the body, and before that it is given those that are there.
//! 2. Each side ends once. Whichever ends second compares.
//! 3. An audit is counted once, and only if the rules would have given the flight's answer to the auditor.
//! 4. No body is kept: the flight and its auditors go on as without the audit.

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
