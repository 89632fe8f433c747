//! What a caller of a group gets.

/// What a caller of a flight gets.
///
/// ```
/// use tower_singleflight::{Group, Outcome};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let group = Group::new();
/// let outcome = group.run("answer", || async { 42 }).await;
/// assert_eq!(outcome, Outcome { value: 42, shared: false, led: true });
/// # }
/// ```
///
/// To count the calls that a group saves, count those that did not lead: `shared` is true for the leader too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<V> {
    /// The value of the work, or a clone of it.
    pub value: V,
    /// Whether a second caller joined. All callers of the flight see it, the leader too, even if the others have left.
    pub shared: bool,
    /// Whether the work that ran was this caller's.
    pub led: bool,
}

impl<V> Outcome<V> {
    /// What a leader gets when nobody joins it.
    pub(super) fn alone(value: V) -> Self {
        Self {
            value,
            shared: false,
            led: true,
        }
    }
}
