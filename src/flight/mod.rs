//! A flight: one call of the inner service, and the requests that share its response.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `identity` | a request's key, or why it has none |
//! | `candidate` | how a request gets into a flight: it leads, joins, or finds it full |
//! | `caller` | a caller's part in a flight, counted |
//! | `state` | how far a flight has come, who waits for its head, and what each is to do then |
//! | `inner` | the bounds on the inner service |
//! | `call` | one call of the inner service, once it is ready |
//! | `work` | what a flight does: the call, the verdict on its head, the body |
//! | `context` | what the parts of this work share |
//! | `head` | a head that may be shared, and the room for its body |
//! | `verdict` | what the call's failure or head means for waiting followers |
//! | `to_variants` | moving followers to the flights of their own variants |
//! | `body` | what the body's frames and end mean for followers and readers |
//! | `audit` | the flight's response, for auditors |
//! | `contender` | the flight's part in the protocol across replicas (feature `redis`) |
//! | `elsewhere` | what a flight does across replicas (feature `redis`) |
//! | `leader` | the caller whose request is forwarded |
//! | `solo` | a leader that is alone, whose flight is an entry of the table and nothing else |
//! | `follower` | a follower that waits for its head |
//! | `reader` | a caller that reads the body |
//! | `complete` | how a follower reads a body that had ended before (`state` hands it out, `buffer/complete.rs` holds it) |
//! | `moving_on` | a follower's body, which calls again if its flight has nothing more for it |

mod audit;
mod body;
mod call;
mod caller;
mod candidate;
mod complete;
#[cfg(feature = "redis")]
mod contender;
mod context;
#[cfg(feature = "redis")]
mod elsewhere;
#[cfg(all(test, feature = "redis"))]
mod elsewhere_tests;
mod follower;
mod head;
mod identity;
mod inner;
mod leader;
mod moving_on;
mod reader;
mod solo;
mod state;
mod to_variants;
mod verdict;
mod work;

pub(crate) use self::{
    call::Oneshot,
    caller::Caller,
    candidate::{Admitted, Candidate},
    complete::CompleteReader,
    follower::{Follower, Own},
    identity::Identity,
    inner::{Inner, InnerBody},
    leader::{Lead, Leader, LeaderRequest},
    moving_on::{Again, FollowerBody, MAX_MOVES},
    reader::{ReadBody, Reader},
    state::{Decision, Flight, HttpFlight, Number},
    work::Work,
};
#[cfg(feature = "redis")]
pub(crate) use self::{contender::Contender, elsewhere::FromReplica};
