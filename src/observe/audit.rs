//! The results of audits.

use std::fmt;

#[cfg(feature = "metrics")]
use super::metrics::{AUDITS, of_layer};
use super::request::CallerSpan;
#[cfg(feature = "tracing")]
use super::{TARGET, shown};
use crate::group::Name;
#[cfg(feature = "tracing")]
use crate::group::report;

/// How an audited request's response differs from its flight's. It holds no values.
pub(crate) struct Difference {
    pub(crate) status: bool,
    /// The names of the fields.
    pub(crate) fields: Vec<String>,
    pub(crate) body: Option<BodyDifference>,
}

pub(crate) struct BodyDifference {
    /// Those of the flight and of the audited request.
    pub(crate) lengths: (u64, u64),
    /// The first difference is within this many bytes, a power of ten.
    pub(crate) within: Option<u64>,
}

// ===== impl Difference =====

impl Difference {
    pub(crate) fn what(&self) -> &'static str {
        match (self.status, !self.fields.is_empty(), self.body.is_some()) {
            (false, false, false) => "",
            (true, false, false) => "status",
            (false, true, false) => "fields",
            (false, false, true) => "body",
            (true, true, false) => "status,fields",
            (true, false, true) => "status,body",
            (false, true, true) => "fields,body",
            (true, true, true) => "status,fields,body",
        }
    }
}

impl fmt::Display for BodyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lengths {
            (one, two) if one == two => write!(f, "length {one}")?,
            (one, two) => write!(f, "lengths {one} and {two}")?,
        }
        match self.within {
            Some(within) => write!(f, ", within the first {within}"),
            None => Ok(()),
        }
    }
}

// ===== events =====

/// An audit has ended. `what`: how the responses differed.
pub(crate) fn audited(layer: &Name, result: &'static str, what: &'static str) {
    #[cfg(feature = "metrics")]
    of_layer(layer, |layer| {
        metrics::counter!(AUDITS, "layer" => layer, "result" => result, "what" => what)
            .increment(1);
    });
}

/// `request_fields`: the names of the fields in which the two requests differed.
pub(crate) fn differs(
    layer: &Name,
    caller: &CallerSpan,
    path: &str,
    difference: &Difference,
    request_fields: &[String],
) {
    #[cfg(feature = "tracing")]
    report(|| {
        let list = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
        let (layer, what) = (shown(layer), difference.what());
        let fields = list(&difference.fields);
        let body = difference.body.as_ref().map(BodyDifference::to_string);
        let request_fields = list(request_fields);
        tracing::warn!(
            target: TARGET, parent: &caller.span.0, layer, path, what, fields, body, request_fields, "differs"
        );
    });
}
