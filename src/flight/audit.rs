//! A flight's response, for auditors.

use std::sync::Arc;

use bytes::Bytes;
use http::response;
use http_body::Frame;

use super::{
    context::WorkContext,
    state::{Stage, State},
};
use crate::{
    audit::{Original, Recipients},
    key::KeyExtractor,
    rules::Variant,
};

/// What auditors need of a flight that has ended.
pub(super) struct TakenOriginal {
    original: Arc<Original>,
    /// If it is shared, and complete.
    head: Option<Arc<response::Parts>>,
    variant: Option<Variant>,
}

// ===== impl TakenOriginal =====

impl TakenOriginal {
    pub(super) fn of<K>(state: &mut State<K>) -> Option<Self> {
        let original = state.original.take()?;
        let head = match &state.stage {
            Stage::Shared(head) if state.buffer.is_complete() => Some(Arc::clone(head)),
            _ => None,
        };
        Some(Self {
            original,
            head,
            variant: state.variant.as_ref().map(|(variant, _)| variant.clone()),
        })
    }

    /// The response is only for its leader.
    pub(super) fn refuse(self) {
        self.original.end(None, None);
    }
}

// ===== impl WorkContext =====

impl<X> WorkContext<X>
where
    X: KeyExtractor,
{
    /// The flight has ended, complete or not.
    pub(super) fn conclude(&self, taken: Option<TakenOriginal>) {
        let Some(taken) = taken else {
            return;
        };
        let recipients = self.recipients(taken.variant);
        let head = taken.head.as_deref();
        taken.original.end(Some(recipients), head);
    }

    /// The work is dropped or gives up before its end.
    pub(super) fn lose(&self) {
        let taken = TakenOriginal::of(&mut self.flight().data.state());
        self.conclude(taken);
    }

    fn recipients(&self, variant: Option<Variant>) -> Recipients {
        Recipients {
            variant,
            request: self.request.fields.clone(),
        }
    }

    /// The flight ends with its head.
    pub(super) fn conclude_whole(
        &self,
        original: &Original,
        head: &response::Parts,
        frame: Option<&Frame<Bytes>>,
    ) {
        if let Some(frame) = frame {
            let data = frame.data_ref().map_or(&[][..], |data| data);
            original.receive(data, frame.trailers_ref().cloned());
        }
        let recipients = self.recipients(self.variant(head));
        original.end(Some(recipients), Some(head));
    }
}
