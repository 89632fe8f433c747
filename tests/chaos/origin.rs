//! The inner service: it does what each call's plan says, at the pace that a test sets.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tower::{BoxError, Service};

use crate::{
    support::Rng,
    world::{End, Head, Kind, Length, Live, World, bytes, message, trailers},
};

/// When the next step of a call is taken.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// When the test says so.
    Gated(Arc<Gates>),
    /// Now, or when another thread has woken the call, by chance.
    Random(Arc<Mutex<Rng>>, mpsc::Sender<Waker>),
    /// After up to so many milliseconds.
    Timed(Arc<Mutex<Rng>>, u64),
}

/// The calls that wait for a step.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<GatesState>);

#[derive(Debug, Default)]
struct GatesState {
    open: bool,
    waiting: Vec<Arc<Gate>>,
}

#[derive(Debug, Default)]
struct Gate(Mutex<(bool, Option<Waker>)>);

#[derive(Debug)]
struct Steps {
    pace: Pace,
    gate: Option<Arc<Gate>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Room for so many calls at once.
#[derive(Debug)]
pub(crate) struct Capacity(Mutex<(usize, Vec<Waker>)>);

#[derive(Debug)]
struct Permit(Option<Arc<Capacity>>);

#[derive(Debug)]
pub(crate) struct Origin {
    world: Arc<World>,
    pace: Pace,
    capacity: Option<Arc<Capacity>>,
    permit: Option<Permit>,
}

#[derive(Debug)]
pub(crate) struct Call {
    live: Option<Live>,
    steps: Steps,
    left: u64,
    _permit: Permit,
}

#[derive(Debug)]
pub(crate) struct Source {
    live: Option<Live>,
    steps: Steps,
    at: usize,
    next: usize,
    trailers: bool,
}

// ===== impl Gates =====

impl Gates {
    /// Lets a call take one step.
    pub(crate) fn open_one(&self, rng: &mut Rng) -> bool {
        let gate = {
            let mut state = self.0.lock().unwrap();
            if state.waiting.is_empty() {
                return false;
            }
            let at = rng.index(state.waiting.len());
            state.waiting.swap_remove(at)
        };
        gate.open();
        true
    }

    /// From now on nobody waits.
    pub(crate) fn open_all(&self) {
        let gates = {
            let mut state = self.0.lock().unwrap();
            state.open = true;
            std::mem::take(&mut state.waiting)
        };
        gates.iter().for_each(|gate| gate.open());
    }
}

impl Gate {
    fn open(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// ===== impl Steps =====

impl Steps {
    fn new(pace: &Pace) -> Self {
        Self {
            pace: pace.clone(),
            gate: None,
            sleep: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.pace {
            Pace::Gated(gates) => {
                let gate = match &self.gate {
                    Some(gate) => gate,
                    None => {
                        let mut state = gates.0.lock().unwrap();
                        if state.open {
                            return Poll::Ready(());
                        }
                        let gate = Arc::<Gate>::default();
                        state.waiting.push(Arc::clone(&gate));
                        self.gate.insert(gate)
                    }
                };
                {
                    let mut state = gate.0.lock().unwrap();
                    if !state.0 {
                        // The last waker alone is woken, as futures are told to.
                        let old = state.1.replace(cx.waker().clone());
                        drop(state);
                        drop(old);
                        return Poll::Pending;
                    }
                }
                self.gate = None;
                Poll::Ready(())
            }
            Pace::Random(rng, later) => match rng.lock().unwrap().below(8) {
                0..=3 => Poll::Ready(()),
                4 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                5 => {
                    std::thread::yield_now();
                    Poll::Ready(())
                }
                _ => {
                    let _ = later.send(cx.waker().clone());
                    Poll::Pending
                }
            },
            Pace::Timed(rng, most) => {
                if self.sleep.is_none() {
                    let micros = {
                        let mut rng = rng.lock().unwrap();
                        match rng.chance(50) {
                            true => 0,
                            false => rng.below(most * 1000 + 1),
                        }
                    };
                    if micros == 0 {
                        return Poll::Ready(());
                    }
                    self.sleep = Some(Box::pin(tokio::time::sleep(Duration::from_micros(micros))));
                }
                let sleep = self.sleep.as_mut().expect("made just now");
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let (Pace::Gated(gates), Some(gate)) = (&self.pace, self.gate.take()) {
            let mut state = gates.0.lock().unwrap();
            state.waiting.retain(|other| !Arc::ptr_eq(other, &gate));
        }
    }
}

// ===== impl Capacity =====

impl Capacity {
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new((room, Vec::new()))))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(capacity) = &self.0 {
            let wakers = {
                let mut state = capacity.0.lock().unwrap();
                state.0 += 1;
                std::mem::take(&mut state.1)
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

// ===== impl Origin =====

impl Origin {
    pub(crate) fn new(world: Arc<World>, pace: Pace, capacity: Option<Arc<Capacity>>) -> Self {
        Self {
            world,
            pace,
            capacity,
            permit: None,
        }
    }
}

/// A clone has no permit, as the clone of a `ConcurrencyLimit` has none.
impl Clone for Origin {
    fn clone(&self) -> Self {
        Self::new(
            Arc::clone(&self.world),
            self.pace.clone(),
            self.capacity.clone(),
        )
    }
}

impl<B> Service<Request<B>> for Origin {
    type Response = Response<Source>;
    type Error = BoxError;
    type Future = Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.permit.is_none() {
            if let Some(capacity) = &self.capacity {
                let mut state = capacity.0.lock().unwrap();
                if state.0 == 0 {
                    state.1.push(cx.waker().clone());
                    return Poll::Pending;
                }
                state.0 -= 1;
            }
            self.permit = Some(Permit(self.capacity.clone()));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Call {
        let permit = self
            .permit
            .take()
            .expect("called without having been polled ready");
        let live = self.world.begin(&request.into_parts().0);
        let call = live.record.call;
        if live.record.plan.head == Head::PanicInCall {
            panic!("{}", message(call));
        }
        Call {
            left: live.record.plan.steps,
            live: Some(live),
            steps: Steps::new(&self.pace),
            _permit: permit,
        }
    }
}

// ===== impl Call =====

impl Future for Call {
    type Output = Result<Response<Source>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while self.left > 0 {
            ready!(self.steps.poll(cx));
            self.left -= 1;
        }
        let live = self.live.take().expect("polled after completion");
        let record = Arc::clone(&live.record);
        let plan = &record.plan;
        match plan.head {
            Head::Given => {}
            Head::Error => {
                live.stamp_end();
                return Poll::Ready(Err(message(record.call).into()));
            }
            Head::Panic | Head::PanicInCall => {
                live.stamp_end();
                panic!("{}", message(record.call));
            }
        }
        let mut head = Response::builder()
            .status(plan.status)
            .header("x-call", record.call)
            .header("etag", format!("\"{}\"", record.content));
        if record.asked.method == http::Method::POST && plan.status == 200 {
            head = head.header("x-wrote", live.world.write(&record.asked.path));
        }
        match plan.kind {
            Kind::Plain => {}
            Kind::VariesByVariant => head = head.header("vary", "x-variant"),
            Kind::SetsCookie => head = head.header("set-cookie", "a=b"),
            Kind::Private => head = head.header("cache-control", "private"),
            Kind::EventStream => head = head.header("content-type", "text/event-stream"),
            Kind::VariesByAll => head = head.header("vary", "*"),
        }
        let total = plan.total();
        match plan.length {
            Length::Field => head = head.header("content-length", total),
            Length::TooHigh => head = head.header("content-length", total + 1),
            Length::TooLow => head = head.header("content-length", total - 1),
            Length::Hint | Length::Unknown => {}
        }
        let source = Source {
            steps: Steps::new(&self.steps.pace),
            live: Some(live),
            at: 0,
            next: 0,
            trailers: false,
        };
        if plan.total() == 0 {
            source.live().stamp_given();
        }
        if source.is_over() {
            source.live().stamp_end();
        }
        Poll::Ready(Ok(head.body(source).unwrap()))
    }
}

// ===== impl Source =====

impl Source {
    fn live(&self) -> &Live {
        self.live.as_ref().expect("a source is live")
    }

    /// Whether it says that nothing more comes.
    fn is_over(&self) -> bool {
        let plan = &self.live().record.plan;
        plan.says_last && self.next == plan.chunks.len() && (self.trailers || !plan.trailers)
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.steps.poll(cx));
        let record = Arc::clone(&self.live().record);
        let plan = &record.plan;
        if let Some(&len) = plan.chunks.get(self.next) {
            let data = bytes(record.content, self.at, len);
            self.next += 1;
            self.at += len;
            if self.at == plan.total() {
                self.live().stamp_given();
            }
            if self.is_over() {
                self.live().stamp_end();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match plan.end {
            End::Complete => {}
            End::Error => {
                self.live().stamp_end();
                return Poll::Ready(Some(Err(message(record.call).into())));
            }
            End::Panic => {
                self.live().stamp_end();
                panic!("{}", message(record.call));
            }
        }
        if plan.trailers && !self.trailers {
            self.trailers = true;
            self.live().stamp_end();
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(record.content)))));
        }
        self.live().stamp_end();
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let plan = &self.live().record.plan;
        match plan.length {
            Length::Hint => SizeHint::with_exact((plan.total() - self.at) as u64),
            _ => SizeHint::default(),
        }
    }
}
