//! x
#[test]
fn loom_builds() {
    loom::model(|| {});
}
