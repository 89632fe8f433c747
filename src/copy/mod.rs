//! The shared copy of a response body: its frames, its limits and its readers' places.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `tape` | the frames that were received, and who may read which |
//! | `budget` | `max_buffered`: the bytes of all copies together |

mod budget;
mod tape;

pub(crate) use self::{
    budget::Budget,
    tape::{Cursor, Limits, Read, Tape},
};
