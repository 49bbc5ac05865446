//! What the macros refuse, and what they say to write instead. After a change of
//! their words: `TRYBUILD=overwrite cargo test -p outrigger-macros --test errors`.

#[test]
fn each_mistake_is_answered_where_it_stands_with_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/errors/*.rs");
}
