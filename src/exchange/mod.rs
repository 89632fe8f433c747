//! One request's way through its flight: what the leader's call, the followers and the readers of the body do.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `question` | a request's key, or why it has none |
//! | `oneshot` | one call of the inner service, readiness first |
//! | `seat` | a caller's part in a flight, counted |
//! | `join` | lead or join: which flight a request may have a part in |
//! | `work` | what a flight does: the call, the verdict on its head, the body |
//! | `verdict` | what its failure or head means for those who wait |
//! | `flow` | what its body's frames and end mean for them, and for those who read |
//! | `desk` | what the work and its leader have in common: the request's fields, the response |
//! | `waiter` | a follower that waits for its head |
//! | `reader` | a caller that reads the body |
//! | `moving_on` | a follower's body, which calls again where its flight has nothing more for it |

mod desk;
mod flow;
mod join;
mod moving_on;
mod oneshot;
mod origin;
mod question;
mod reader;
mod seat;
mod verdict;
mod waiter;
mod work;

pub(crate) use self::{
    desk::{Answer, Desk},
    join::{Joined, Newcomer},
    moving_on::{Again, FollowerBody, MOVES},
    oneshot::Oneshot,
    origin::{Origin, OriginBody},
    question::Question,
    reader::{ReadBody, Reader},
    seat::Seat,
    waiter::{Next, Waiter},
    work::Work,
};
