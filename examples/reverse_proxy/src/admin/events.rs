//! `GET /events`: what the page shows, four times a second.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header::RETRY_AFTER},
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::Admin;
use crate::observe::Histogram;

/// Flights are often shorter than the time between two events, so that an event has the peaks of many looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);
const LOOKS_PER_EVENT: u32 = 10;
/// Latencies are those of the last second.
const EVENTS_PER_SECOND: usize = 4;

struct Events {
    admin: Arc<Admin>,
    ticks: Interval,
    latencies: VecDeque<Histogram>,
    /// Given back when the page is closed.
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn events(
    State(admin): State<Arc<Admin>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, impl IntoResponse> {
    let Ok(permit) = Arc::clone(&admin.streams).try_acquire_owned() else {
        let words = "Too many pages are open.\n";
        return Err((StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], words));
    };
    let mut ticks = interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let latencies = VecDeque::from([admin.observed.latency.snapshot()]);
    let events = Events {
        admin,
        ticks,
        latencies,
        _permit: permit,
    };
    let events = stream::unfold(events, |mut events| async {
        let event = events.next().await;
        Some((Ok(event), events))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

// ===== impl Events =====

impl Events {
    async fn next(&mut self) -> Event {
        let (mut in_flight, mut waiters, mut buffered_bytes) = (0, 0, 0);
        for _ in 0..LOOKS_PER_EVENT {
            self.ticks.tick().await;
            let stats = self.admin.flights.stats();
            in_flight = in_flight.max(stats.in_flight);
            waiters = waiters.max(stats.waiters);
            buffered_bytes = buffered_bytes.max(stats.buffered_bytes);
        }
        let now = self.admin.observed.latency.snapshot();
        let last_second = now.since(&self.latencies[0]);
        self.latencies.push_back(now);
        if self.latencies.len() > EVENTS_PER_SECOND {
            self.latencies.pop_front();
        }
        let mut event = self.admin.snapshot(&last_second);
        event["peak"] = json!({
            "in_flight": in_flight,
            "waiters": waiters,
            "buffered_bytes": buffered_bytes,
        });
        Event::default().data(event.to_string())
    }
}
