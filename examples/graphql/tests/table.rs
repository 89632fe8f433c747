//! What the example prints is what it promises.

use std::process::Command;

#[test]
fn a_hundred_equal_queries_share_their_resolvers_runs_and_a_mutation_runs_for_itself() {
    let output = Command::new(env!("CARGO_BIN_EXE_graphql"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Columns: layer, queries, resolver runs, mutations, mutation runs.
    let row = |layer: &str| {
        let row = text.lines().map(str::split_whitespace);
        let mut row = row.filter(|row| row.clone().next() == Some(layer));
        let numbers = row
            .next()
            .unwrap_or_else(|| panic!("no row {layer}: {text}"));
        numbers
            .skip(1)
            .map(|number| number.parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(row("without")[1], 100, "{text}");
    let with = row("with");
    assert!((2..=20).contains(&with[1]), "{text}");
    assert_eq!(with[3], 1, "{text}");
}
