//! Calls that end without a response of the upstream.

use std::{error::Error, fmt::Write};

use http::StatusCode;
use hyper_util::client::legacy;
use tower::BoxError;

use super::connection::broke_unanswered;

/// Why a call has no response.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// For the log and the operator; clients get the words of `kind`.
    pub(super) cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request was not sent.
    Unreachable,
    /// A connection that had been used before broke without a byte of an answer.
    BrokeUnanswered,
    BrokeOff,
    TooSlow,
    UnaskedUpgrade,
    UnaskedCoding,
}

// ===== impl Failure =====

impl Failure {
    pub(super) fn new(kind: Kind, error: &(dyn Error + 'static)) -> Self {
        Self {
            kind,
            cause: chain(error),
        }
    }
}

/// A response that can't be passed on.
impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            cause: "against the protocol".to_owned(),
        }
    }
}

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        let kind = if error.is_connect() {
            Kind::Unreachable
        } else if broke_unanswered(&error) {
            Kind::BrokeUnanswered
        } else {
            Kind::BrokeOff
        };
        Self::new(kind, &error)
    }
}

// ===== impl Kind =====

impl Kind {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooSlow => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// For clients: they learn what happened, and nothing of where.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "The upstream can't be reached.\n",
            Self::BrokeUnanswered | Self::BrokeOff => {
                "The upstream broke off before its response was there.\n"
            }
            Self::TooSlow => "The upstream did not respond in time.\n",
            Self::UnaskedCoding => "The upstream used a transfer coding that nobody asked for.\n",
            Self::UnaskedUpgrade => "The upstream changed to a protocol that nobody asked for.\n",
        }
    }
}

/// An error with all its sources, in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        // Some errors repeat their source.
        if !text.ends_with(&more) {
            write!(text, ": {more}").expect("a string takes all that is written to it");
        }
        next = error.source();
    }
    text
}

/// The same of an error that has no type.
pub(super) fn chain_of(error: &BoxError) -> String {
    chain(&**error)
}
