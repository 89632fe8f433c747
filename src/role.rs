//! `Role`.

use crate::cache_status::Forward;

/// What the layer did with a request; in the [extensions](http::Extensions) of every response that passed it.
///
/// ```
/// # fn log(response: &http::Response<()>) {
/// use tower_singleflight::Role;
///
/// if let Some(Role::Follower) = response.extensions().get() {
///     // This response was made for an identical request.
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Its request was forwarded to the inner service, and identical ones could join it.
    Leader,
    /// It is a copy of a response to an identical request.
    Follower,
    /// Its request could have shared a flight, but made a call of its own: the response that it waited for was not for it,
    /// its key is known to be unshareable, the flight had all the callers that it may have, or the request is
    /// [audited](crate::SingleflightLayer::audit).
    Forwarded,
    /// Its request was never to be coalesced.
    Bypassed,
    /// It is a copy of a response that another replica has had to an identical request.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    Replica,
}

/// Why a request made the call that it made, for `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Led,
    Followed,
    /// Had joined, and was sent on.
    Forwarded,
    /// Could not join.
    NotJoined,
    Bypassed,
    /// Its method alone kept it from being coalesced.
    Method,
    /// Got another replica's response.
    #[cfg(feature = "redis")]
    Replica,
}

// ===== impl Disposition =====

impl Disposition {
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Led => Role::Leader,
            Self::Followed => Role::Follower,
            Self::Forwarded | Self::NotJoined => Role::Forwarded,
            Self::Bypassed | Self::Method => Role::Bypassed,
            #[cfg(feature = "redis")]
            Self::Replica => Role::Replica,
        }
    }

    pub(crate) fn forward(self) -> Forward {
        match self {
            // Not collapsed with anything, nor meant to be (RFC 9211 section 2.6).
            Self::Led | Self::NotJoined => Forward::Miss,
            Self::Followed => Forward::Collapsed,
            Self::Forwarded => Forward::NotCollapsed,
            Self::Bypassed => Forward::Bypass,
            Self::Method => Forward::Method,
            #[cfg(feature = "redis")]
            Self::Replica => Forward::Replica,
        }
    }
}
