//! `Role`.

/// What the layer did with a request. Every response that passes the layer has it in its
/// [extensions](http::Extensions).
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
    /// Its request could have shared a flight, but made its own call: it may not have the response that it waited for,
    /// its key is known to be unshareable, the flight was full, or the request is
    /// [audited](crate::SingleflightLayer::audit).
    Forwarded,
    /// Its request is of a kind that is never coalesced, or the layer is off.
    Bypassed,
    /// It is a copy of a response that another replica got for an identical request.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    Replica,
}

/// What became of a request, for its [`Role`] and for `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Led,
    Followed,
    /// It had joined, and then made its own call.
    Forwarded,
    /// Could not join.
    NotJoined,
    Bypassed,
    /// It bypassed only because of its method.
    Method,
    /// Got another replica's response.
    #[cfg(feature = "redis")]
    Replica,
}

// ===== impl Disposition =====

impl Disposition {
    pub(crate) const ALL: &[Self] = &[
        Self::Led,
        Self::Followed,
        Self::Forwarded,
        Self::NotJoined,
        Self::Bypassed,
        Self::Method,
        #[cfg(feature = "redis")]
        Self::Replica,
    ];

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
}
