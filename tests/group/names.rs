//! The name of a group.

use tower_singleflight::Group;

#[test]
fn a_name_is_of_the_group_and_all_its_clones() {
    let group: Group<&str, u32> = Group::new();
    let clone = group.clone();
    let group = group.name(String::from("articles"));
    for group in [group, clone] {
        assert_eq!(
            format!("{group:?}"),
            "Group { name: \"articles\", in_flight: 0, .. }"
        );
    }
}

#[test]
#[should_panic(expected = "is named \"articles\"")]
fn a_second_name_is_refused() {
    let group: Group<&str, u32> = Group::new().name("articles");
    let _ = group.clone().name("pages");
}
